"""The app's addresses: an explanation from a picture to a kept folder, and who is refused."""

import io
import json
import shlex
import zipfile
from dataclasses import replace

import pytest

pytest.importorskip("starlette")

from ace_counterfactuals.core.app.config import ServingConfig
from ace_counterfactuals.core.app.guarding import AUTH, credentials
from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli import explain
from tests.support.app_cases import ask, events, painted, png, served, toy_studio
from tests.support.toys import Workshop, tree

SECRET = "auditor:a long pass:word"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("app"))
    return toy_studio(shop, batch_size=None, unseen=shop.classifier)


@pytest.fixture
def client(studio, tmp_path):
    with served(studio, tmp_path) as client:
        yield client


@pytest.fixture
def told(client):
    """The id and the last event of an explanation of a painted region."""
    key = ask(client, target=1, region=painted(1, 1, 7, 7), flags={"attack_iterations": "3", "attack_step": "60"})
    return key, events(client, key)[-1]


def test_an_explanation_is_told_from_its_place_in_the_line_to_its_result(client):
    seen = events(client, ask(client, target=1, flags={"attack_iterations": "3"}))
    assert [point[0] for event in seen for point in event["curve"]][:1] == [1]
    assert any(event.get("picture", "").startswith("data:image/png;base64,") for event in seen)
    result = seen[-1]["result"]
    assert (seen[-1]["state"], result["target"], result["iterations"]) == ("done", 1, 3)
    assert list(result["unseen"]) == ["classifier"]


def test_pictures_are_given_and_answered_with_what_the_classifier_says(client):
    told = client.post("/pictures", content=png(40, 20), headers={"X-Name": "%3Cb%3E.png"}).json()
    assert told["name"] == "<b>.png" and (told["width"], told["height"]) == (8, 8)
    assert sum(told["shares"]) == pytest.approx(1) and "8 x 8 pixels" in told["said"][-1]
    assert client.get(f"/pictures/{told['id']}").headers["content-type"] == "image/png"


@pytest.mark.parametrize("region", [painted(1, 1, 7, 7), "0,0,3,8"])
def test_the_bytes_of_a_kept_result_are_those_of_the_copied_command(client, tmp_path, region):
    flags = {"attack_iterations": "3", "seed": "7"}
    key = ask(client, target=2, region=region, invert="," in region, flags=flags)
    assert events(client, key)[-1]["state"] == "done"
    place = client.post(f"/explanations/{key}/save").json()["place"]
    program, main, *words = shlex.split((tmp_path / "kept" / place / "command.txt").read_text())
    assert (program, main) == ("python", "main.py") and explain.main(words) == 0
    kept, again = (tree(tmp_path / "kept" / place / part) for part in ("", "again"))
    same = {name: data for name, data in kept.items() if name.startswith(("Results", "Original"))}
    assert same == again and {"picture.png", "command.txt"} < kept.keys()
    assert ("region.png" in kept) == ("," not in region)


def test_a_kept_folder_is_read_by_evaluate_py(client, told):
    from ace_counterfactuals.core.cli import evaluate

    place = client.post(f"/explanations/{told[0]}/save").json()["place"]
    assert evaluate.main(["--output-path", place]) == 0
    assert [page["href"] for page in []] == []


def test_the_zip_holds_the_same_under_one_folder_with_a_command_for_within_it(client, told):
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/explanations/{told[0]}/result.zip").content))
    (top,) = {name.split("/")[0] for name in archive.namelist()}
    assert f"{top}/Results/exp/records/0000000.json" in archive.namelist()
    command = archive.read(f"{top}/command.txt").decode()
    assert "--image picture.png" in command and "--region region.png" in command


def test_regions_are_put_back_one_at_a_time(client, told):
    key, last = told
    regions = client.post(f"/explanations/{key}/undo").json()
    assert regions and all(0 <= region["wanted"] <= 1 and len(region["box"]) == 4 for region in regions)
    if len(regions) == 1 and last["result"]["success"]:
        assert regions[0]["needed"] and regions[0]["prediction"] == last["result"]["prediction"]


def test_one_that_is_stopped_ends_within_an_iteration_and_leaves_nothing(client):
    key = ask(client, target=1, flags={"attack_iterations": "100000"})
    job = client.line.jobs[key]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "check", lambda: client.line.stop(job) or type(job).check(job))
        last = events(client, key)[-1]
    assert last["state"] == "cancelled" and job.result is None


def test_a_dropped_result_is_gone_from_the_disk(client, told):
    result = client.line.jobs[told[0]].result
    assert result.results.root.exists()
    assert client.delete(f"/explanations/{told[0]}").status_code == 204
    assert not result.results.output.exists() and client.get(f"/explanations/{told[0]}/mask.png").status_code == 404


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"picture": "none"}, "give it again"),
        ({"target": 7}, "3 classes"),
        ({"target": "boot"}, "target"),
        ({"flags": {"model_path": "/etc/passwd"}}, "is not set here"),
        ({"flags": {"attack_step": "-1"}}, "out of range"),
        ({"region": "1,2"}, "four whole numbers"),
        ({"region": "!"}, "white where"),
        ({"region": "/etc/passwd"}, "white where"),
        ({"other": 1}, "other"),
        ({"region": painted(0, 0, 1, 1, side=2049)}, "white where"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_a_sentence(client, wanted, said):
    given = client.post("/examples/0").json()["id"]
    answer = client.post("/explanations", json={"picture": given, **wanted})
    assert answer.status_code == 400 and said in answer.json()["error"]


def test_what_is_no_json_or_too_much_is_refused_and_the_next_is_answered(client):
    for content in (b"{", b"[" * 100_000, b"\xff", b"null"):
        assert client.post("/explanations", content=content).status_code == 400
    assert "MiB" in client.post("/pictures", content=bytes(21 * 2**20)).json()["error"]
    assert client.get("/about").status_code == 200


def test_a_failed_explanation_says_why(client):
    prediction = client.post("/examples/0").json()["shares"]
    key = ask(client, target=prediction.index(max(prediction)))
    last = events(client, key)[-1]
    assert last["state"] in ("failed", "done") and (last["state"] == "done" or last["error"])


OUTSIDE = [
    "../secret.html",
    "%2e%2e/secret.html",
    "..%2fsecret.html",
    "link.html",
    "page.html/../../secret.html",
    "notes.txt",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_only_files_below_the_folders_are_served(studio, tmp_path, path):
    (tmp_path / "browsed").mkdir()
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "browsed/link.html").symlink_to(tmp_path / "secret.html")
    (tmp_path / "browsed/notes.txt").write_text("secret")
    (tmp_path / "browsed/report.html").write_text("report")
    with served(studio, tmp_path) as client:
        answer = client.get("/reports/0/report.html")
        assert answer.text == "report" and answer.headers["content-security-policy"].startswith(
            "sandbox allow-scripts;"
        )
        for address in (f"/reports/0/{path}", f"/reports/9/{path}", f"/assets/{path}", f"/pictures/{path}"):
            assert "secret" not in client.get(address).text
        assert "report.html" in client.get("/browse").text


def test_another_site_may_not_ask_and_no_other_name_is_answered_to(client):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert client.post("/examples/0", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/examples/0", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/examples/0", headers={"Origin": "http://127.0.0.1"}).status_code == 200


def test_pages_may_load_what_the_app_serves_alone(client):
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in answer.text and "https://" not in answer.text


def test_with_a_password_nothing_is_answered_without_it(studio, tmp_path):
    user, _, password = SECRET.partition(":")
    with served(studio, tmp_path, auth=SECRET) as client:
        for path in ("/", "/about", "/assets/app.js", "/reports/0/report.html"):
            assert client.get(path).status_code == 401
        assert client.get("/", auth=(user, "wrong")).status_code == 401
        for header in (b"Basic ???", b"Basic \xe9", b"Basic", b""):
            assert client.get("/", headers={"Authorization": header}).status_code == 401
        assert client.get("/", auth=(user, password), headers={"Host": "audit.example"}).status_code == 200


def test_any_other_address_asks_for_a_password_from_the_environment_or_a_file(tmp_path):
    open_to_all, file = ServingConfig(host="0.0.0.0"), tmp_path / "auth"
    file.write_text(f"{SECRET}\n")
    with pytest.raises(FlagError, match=AUTH):
        credentials(open_to_all, {})
    assert credentials(open_to_all, {AUTH: SECRET}) == SECRET
    assert credentials(replace(open_to_all, auth_file=str(file)), {}) == SECRET
    assert credentials(ServingConfig(), {}) == ""
    for wrong in ("auditor", ":word", "auditor:"):
        with pytest.raises(ValueError, match="USER:PASSWORD"):
            credentials(open_to_all, {AUTH: wrong})
    with pytest.raises(FlagError, match="no such file|cannot be read"):
        credentials(replace(open_to_all, auth_file=str(tmp_path / "none")), {})


def test_strengths_differ_and_the_page_shows_their_settings(client):
    words = client.get("/about").json()["strengths"]
    assert len({json.dumps(settings) for settings in words.values()}) == 3
    page = client.get("/").text
    assert all(f'name="{name}"' in page for settings in words.values() for name in settings)
