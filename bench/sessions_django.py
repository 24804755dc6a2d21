"""Django with djangorestframework-simplejwt, refresh by rotation and blacklist, for `bench.sessions`.

It runs in the peers' own environment, under Granian as a WSGI app, and reads what it is to do from the variable
BENCH_SERVER. `/token/` and `/token/refresh/` are the library's own views; the protected view is `/me/`. The accounts
are made before the app serves.
"""

import datetime as dt
import json
import os
import secrets
from typing import Any, ClassVar

import django
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher

ORDERS = json.loads(os.environ["BENCH_SERVER"])


class StoredParameters(Argon2PasswordHasher):
    """Argon2id by argon2-cffi, as in jotgate: at the cost that the hash itself names, and never hashed anew."""

    time_cost = ORDERS["argon2"]["time_cost"]
    memory_cost = ORDERS["argon2"]["memory_cost"]
    parallelism = ORDERS["argon2"]["parallelism"]

    def must_update(self, encoded: str) -> bool:
        """Leave the hashes alone."""
        return False


if not settings.configured:
    settings.configure(
        SECRET_KEY=secrets.token_hex(32),
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "rest_framework",
            "rest_framework_simplejwt.token_blacklist",
        ],
        # Authentication by token needs none: sessions, CSRF and messages are for cookies.
        MIDDLEWARE=[],
        PASSWORD_HASHERS=[f"{__name__}.StoredParameters"],
        DATABASES={"default": {**ORDERS["database"], "CONN_MAX_AGE": None, "ATOMIC_REQUESTS": True}},
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
            "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
        },
        SIMPLE_JWT={
            "ROTATE_REFRESH_TOKENS": True,
            "BLACKLIST_AFTER_ROTATION": True,
            "ACCESS_TOKEN_LIFETIME": dt.timedelta(hours=1),
            "REFRESH_TOKEN_LIFETIME": dt.timedelta(days=14),
        },
    )
    django.setup()

from django.contrib.auth.models import User  # noqa: E402 # Django's models exist once it is set up
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView  # noqa: E402


class Me(APIView):
    """The protected view."""

    permission_classes: ClassVar[list[Any]] = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        """Say whose token it is."""
        return Response({"sub": request.user.username})


def healthz(_: HttpRequest) -> JsonResponse:
    """Say that it is up."""
    return JsonResponse({"status": "ok"})


# Whatever only reads needs no transaction; whatever writes has one, so that it waits for the disk once.
urlpatterns = [
    path("token/", TokenObtainPairView.as_view()),
    path("token/refresh/", TokenRefreshView.as_view()),
    path("me/", transaction.non_atomic_requests(Me.as_view())),
    path("healthz", transaction.non_atomic_requests(healthz)),
]


def make_app() -> Any:  # noqa: ANN401 # a WSGI app
    """Make the tables, the accounts and the app."""
    call_command("migrate", verbosity=0, interactive=False)
    User.objects.bulk_create(
        User(username=f"{kind}{number}@example.com", password=f"argon2{hashed}")
        for kind, hashed in ORDERS["hashes"].items()
        for number in range(ORDERS["accounts"])
    )
    connection.close()
    return get_wsgi_application()
