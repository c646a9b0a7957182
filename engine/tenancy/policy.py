"""What a verified caller may do: scopes and the operator.

Owns the names of the scopes; no state. Used by ingress for messages and by control for management.
What must stay true: a scope is worth something for the caller's own company only, and `operator`
for nobody but the company that the configuration names.
"""

from engine.tenancy.tokens import Claims

PREDICT = "predict"
MODELS_READ = "models:read"
MODELS_WRITE = "models:write"
OPERATOR = "operator"
SCOPES = (PREDICT, MODELS_READ, MODELS_WRITE, OPERATOR)


def may_predict(claims: Claims) -> bool:
    """Whether the caller's messages are answered at all."""
    return PREDICT in claims.scopes


def may_operate(claims: Claims, operator_company: str) -> bool:
    """Whether the caller may change shared models, policies and settings; nobody may where no company is named."""
    return operator_company != "" and claims.company_id == operator_company and OPERATOR in claims.scopes
