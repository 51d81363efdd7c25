"""Deciding: the boundary, its verifiers and the engine. Importing this imports no Kafka: that is `.runtime`."""

from driftline.consumers.app import App, load_app
from driftline.consumers.boundary import Boundary, OnExhausted
from driftline.consumers.budget import Budget
from driftline.consumers.engine import Input, Outcome, decide
from driftline.consumers.fold import Fold
from driftline.consumers.judging import Action, Case, Judge, Judgement, Proposal
from driftline.consumers.machine import Machine, Timer, Transition
from driftline.consumers.policy import Policy, PolicyRule, Refusal, rule
from driftline.consumers.prompt import Prompt
from driftline.consumers.proposing import Answer, CallKey, ProposalRequest, Proposer, ProposerFailure
from driftline.consumers.tools import Tool
from driftline.consumers.verifier_spec import SpecJudge
from driftline.consumers.verifiers import Verifier, VerifierChain

__all__ = [
    "Action",
    "Answer",
    "App",
    "Boundary",
    "Budget",
    "CallKey",
    "Case",
    "Fold",
    "Input",
    "Judge",
    "Judgement",
    "Machine",
    "OnExhausted",
    "Outcome",
    "Policy",
    "PolicyRule",
    "Prompt",
    "Proposal",
    "ProposalRequest",
    "Proposer",
    "ProposerFailure",
    "Refusal",
    "SpecJudge",
    "Timer",
    "Tool",
    "Transition",
    "Verifier",
    "VerifierChain",
    "decide",
    "load_app",
    "rule",
]
