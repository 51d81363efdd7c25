"""Contract renewal over 90 days, on both spines: `driftline.examples.contracts.app:app` and `:state_machine_app`."""
