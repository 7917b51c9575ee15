"""The addresses of the provider in `openid_provider`, and what its tokens say of a person."""

from typing import Any

from django.contrib.auth.views import LoginView
from django.urls import include, path
from oauth2_provider.oauth2_validators import OAuth2Validator

urlpatterns = [
    path("login/", LoginView.as_view()),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]


class Validator(OAuth2Validator):  # type: ignore[misc]  # Django has no types
    """Names and groups are in the ID token."""

    oidc_claim_scope = None

    def get_additional_claims(self, request: Any) -> dict[str, Any]:
        """Of the person who has signed in."""
        groups = [group.name for group in request.user.groups.all()]
        return {"preferred_username": request.user.username, "groups": groups}
