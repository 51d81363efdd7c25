"""The renewals example; the app is `driftline.examples.renewals.app:app`."""
