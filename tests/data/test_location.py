"""What `data.shards` may name, and every attack that it may carry: refused before anything is opened."""

import pytest

from bigtrain.data.location import Location, locations, without_secrets
from bigtrain.data.settings import DataSettings
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError, RecipeError
from bigtrain.recipe.load import load_recipe
from bigtrain.training.schema import Recipe

DIGITS = "bigtrain:digits-biggan"


def test_folders_shards_and_urls_are_told_apart():
    assert locations("/data/pets") == (Location("/data/pets"),)
    assert locations("/data/pets/a.tar") == (Location("/data/pets", "a.tar"),)
    assert locations("a.tar") == (Location(".", "a.tar"),)
    assert locations("https://host:8080/pets/") == (Location("https://host:8080/pets", None, "https"),)
    assert locations("S3://bucket/pets/a.tar") == (Location("s3://bucket/pets", "a.tar", "s3"),)
    assert locations("gs://bucket") == (Location("gs://bucket", None, "gs"),)


def test_braces_stand_for_lists_and_numbers():
    assert [each.folder for each in locations("/data/{a,b}/{x,y}")] == [
        "/data/a/x", "/data/a/y", "/data/b/x", "/data/b/y",
    ]  # fmt: skip
    assert [each.shard for each in locations("/d/t-{000008..000011}.tar")] == [
        "t-000008.tar", "t-000009.tar", "t-000010.tar", "t-000011.tar",
    ]  # fmt: skip
    assert [each.shard for each in locations("d/{9..11}.tar")] == ["9.tar", "10.tar", "11.tar"]
    assert [each.scheme for each in locations("{http://h/a,s3://b/c,/local}")] == ["http", "s3", None]


REFUSED = {
    "pipe:touch canary": "commands are never run",
    "pipe:touch canary; cat {0..3}.tar": "commands are never run",
    "{/data,pipe:touch canary}": "commands are never run",
    "p{i}pe:touch canary": "commands are never run",
    "PIPE:touch canary": "commands are never run",
    "exec:touch canary": "commands are never run",
    "htgs://bucket/a": "did you mean",
    "ais://bucket/a": "commands are never run",
    "htps://host/a": "did you mean https://",
    "gcs://bucket/a": "did you mean gs://",
    "file:///etc": "write the path itself",
    "file://host/share": "write the path itself",
    "FILE:/etc": "write the path itself",
    "simplecache::https://host/a": "'::' chains URLs",
    "zip://*.tar::file:///etc/a.zip": "'::' chains URLs",
    "https://host/a::pipe:touch canary": "'::' chains URLs",
    "/data::pipe:touch canary": "'::' chains URLs",
    "memory://a": "commands are never run",
    "github://org:repo@/a": "commands are never run",
    "https://host/a/../../b": r"climbs with '\.\.'",
    "https://host/a b": "a space or a character",
    "https://host/a\r\nX-Header: 1": "a space or a character",
    "https://host\\@evil/a": "a space or a character",
    "https:///a": "names no host",
    "https:host/a": "names no host",
    "https://host/a?X-Amz-Signature=s3cret": "query or fragment",
    "https://host/a#s3cret": "query or fragment",
    "https://user:s3cret@host/a": "user name or password",
    "https://s3cret@host/a": "user name or password",
    "s3://KEY:s3cret@bucket/a": "user name or password",
    "/d/{0..999999999999}.tar": "runs backwards or over",
    "/d/{0..999999}/{0..9}.tar": "stand for 10000000 places",
    "/d/{5..1}.tar": "runs backwards",
    "/d/{a,{b,c}}": "inside one another",
    "/d/{a": "do not match",
}  # fmt: skip


@pytest.mark.parametrize("place", REFUSED)
def test_what_is_no_place_is_refused_before_anything_is_opened(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=REFUSED[place]) as refused:
        load_recipe(
            DIGITS,
            [f"data.shards={place!r}" if "\r" not in place else 'data.shards="' + "https://host/a\\r\\nX: 1" + '"'],
            Recipe,
        )
    assert "data.shards" in str(refused.value)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(DataError, match=REFUSED[place]) as refused:
        ShardSet.open(place)
    assert "s3cret" not in str(refused.value)
    assert not list(tmp_path.iterdir()), "something was run or written"


def test_messages_of_libraries_lose_the_secrets_of_urls():
    text = "403, message='Forbidden', url='https://me:pw@h/a.tar?X-Amz-Signature=abc&b=c' and s3://k@b/c"
    assert without_secrets(text) == "403, message='Forbidden', url='https://h/a.tar' and s3://b/c"


def test_urls_need_a_cache_and_a_limit_needs_one_too():
    with pytest.raises(RecipeError, match=r"data.cache_dir: is missing, but shards under s3:// are read from copies"):
        load_recipe(DIGITS, ["data.shards=s3://bucket/a"], Recipe)
    with pytest.raises(RecipeError, match=r"data.cache_gib: limits nothing while data.cache_dir is not set"):
        load_recipe(DIGITS, ["data.cache_gib=3"], Recipe)
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/a is read from copies only"):
        ShardSet.open("http://127.0.0.1:9/a")


def test_a_resolved_recipe_keeps_the_words_of_the_cache(monkeypatch, tmp_path):
    words = "$BIGTRAIN_TEST_DISK/${BIGTRAIN_TEST_USER}/x"
    recipe = load_recipe(DIGITS, [f"data.cache_dir={words}"], Recipe)
    assert recipe.model_dump(mode="json")["data"]["cache_dir"] == words
    settings = DataSettings(shards=str(tmp_path), cache_dir=words)
    monkeypatch.setenv("BIGTRAIN_TEST_DISK", str(tmp_path / "disk"))
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("BIGTRAIN_TEST_USER", value)
        with pytest.raises(RecipeError, match=r"data.cache_dir: .* names \$BIGTRAIN_TEST_USER, which is not set here"):
            settings.build(0)
    assert not list(tmp_path.iterdir())
