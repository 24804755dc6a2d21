"""The browser client, as the server serves it."""

from pathlib import Path

import jotgate
from tests.server.http.support import Api

PATH = "/client/v1.js"


async def test_any_page_may_load_it_as_a_module(api: Api) -> None:
    answer = await api.http.get(PATH, headers={"origin": "https://anything.example"})
    assert answer.content == (Path(str(jotgate.__file__)).parent / "client" / "v1.js").read_bytes()
    assert answer.headers["content-type"].split(";")[0] == "text/javascript"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_it_is_kept_and_revalidated(api: Api) -> None:
    first = await api.http.get(PATH)
    assert first.headers["cache-control"] == "public, max-age=3600, stale-while-revalidate=86400"
    again = await api.http.get(PATH, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (await api.http.get(PATH, headers={"if-none-match": '"other"'})).status_code == 200
