"""AWS's errors in words: the call, the code, what AWS said, and what to do. Pure.

Nothing of this is final: a certificate, a permission or an address may be there the next time, so all are retried.
"""

from __future__ import annotations

GONE = frozenset(
    {
        "LoadBalancerNotFound",
        "TargetGroupNotFound",
        "ListenerNotFound",
        "InvalidGroup.NotFound",
        "InvalidPermission.NotFound",
    }
)
"""What was to be taken away isn't there: as good as done."""

DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})

_REMEDIES = {
    "OperationNotPermitted": "take deletion protection off: annotation attributes: deletion_protection.enabled=false",
    "CertificateNotFound": "is the certificate in this region, and issued?",
    "UnsupportedCertificate": "is the certificate issued, with a key that an NLB takes?",
    "AllocationIdNotFound": "name Elastic IPs of this region and account in eip-allocations",
    "InvalidAllocationID.NotFound": "name Elastic IPs of this region and account in eip-allocations",
    "ResourceInUse": "it is released within minutes of its load balancer's deletion; trying again",
    "DependencyViolation": "it is released within minutes of its load balancer's deletion; trying again",
    "TooManyLoadBalancers": "raise the account's quota of Network Load Balancers",
    "TooManyTargetGroups": "raise the account's quota of target groups",
    "TooManyListeners": "raise the quota of listeners, or use fewer ports",
    "TooManyTargets": "raise the quota of targets, or choose fewer nodes with target-node-labels",
    "RulesPerSecurityGroupLimitExceeded": "raise the quota of rules, or use fewer ports or source ranges",
    "SecurityGroupLimitExceeded": "raise the quota of security groups in the VPC",
    "DuplicateLoadBalancerName": "another load balancer has that name: choose another in the annotation name",
    "DuplicateTargetGroupName": "a target group that isn't tagged as ours has that name: delete it",
    "InvalidGroup.Duplicate": "a security group that isn't tagged as ours has that name: delete it",
    "ExpiredToken": "renew the credentials",
    "ExpiredTokenException": "renew the credentials",
    "InvalidClientTokenId": "are these credentials of this account, and still there?",
    "UnrecognizedClientException": "are these credentials of this account, and still there?",
    "AuthFailure": "are these credentials of this account, and is the clock right?",
    "RequestExpired": "set the clock right",
    "SignatureDoesNotMatch": "is the secret key right, and the clock?",
    "Throttling": "AWS asks for fewer calls; trying again",
    "RequestLimitExceeded": "AWS asks for fewer calls; trying again",
}


def action(api: str, operation: str) -> str:
    """The IAM action that boto3's method needs: elasticloadbalancing:CreateLoadBalancer."""
    service = {"elbv2": "elasticloadbalancing"}.get(api, api)
    return f"{service}:{''.join(part.capitalize() for part in operation.split('_'))}"


def describe(api: str, operation: str, code: str, message: str) -> str:
    what = action(api, operation)
    if code in DENIED:
        remedy = f"allow the IAM action {what} to the controller's identity; docs/guide/aws.md has the whole policy"
    else:
        remedy = _REMEDIES.get(code, "")
    return f"AWS {what}: {code}: {message.rstrip('.')}" + (f"; {remedy}" if remedy else "")
