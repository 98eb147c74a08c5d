import pytest
from PIL import Image

from darkroom.cli.edit import naming, read_pictures, write_atomically
from darkroom.errors import InvalidField, JobError


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (32, 32), "teal").save(tmp_path / "photo.png")
    return "photo.png"


@pytest.mark.parametrize(
    ("slug", "names"),
    [
        ("qwen-image-edit-plus", ["image", "image_2", "image_3"]),
        ("qwen-image-edit-plus-multi-lora", ["image_1", "image_2", "image_3"]),
    ],
)
def test_pictures_go_under_the_names_of_the_card(tmp_path, photo, slug, names):
    """Each model's pictures are named as its card names them: files by their bytes, addresses as they are."""
    data = (tmp_path / photo).read_bytes()
    assert read_pictures(slug, [photo, "https://example.org/a.jpg"]) == {
        names[0]: data,
        names[1]: "https://example.org/a.jpg",
    }
    assert list(read_pictures(slug, [photo] * 3)) == names
    with pytest.raises(InvalidField, match="3 pictures, not 4"):
        read_pictures(slug, [photo] * 4)


@pytest.mark.parametrize(
    ("field", "said"),
    [("image_2", "b.txt: image_2: this is text"), ("seed", "seed: this is text"), (None, "None: this is text")],
)
def test_errors_name_the_file(field, said):
    """Who gave files does not know them by the names that the model's card has for them."""
    with pytest.raises(JobError) as caught, naming({"image": "a.png", "image_2": "b.txt"}):
        raise JobError(f"{field}: this is text", field=field)
    assert caught.value.message == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photo.png", "-o", "out.png"], "--prompt"),
        (["photo.png", "-p", "x"], "--out"),
        (["-p", "x", "-o", "out.png"], "IMAGE"),
        (["photo.png", "-p", "x", "-o", "out.gif"], ".png, .jpg, .jpeg, .webp"),
        (["photo.png", "-p", "x", "-o", "out"], ".png, .jpg, .jpeg, .webp"),
        (["photo.png", "-p", "x", "-o", "nowhere/out.png"], "nowhere/out.png"),
        (["photo.png", "-p", "x", "-o", "folder.png"], "is a folder"),
        (["missing.png", "-p", "x", "-o", "out.png"], "missing.png: No such file"),
        (["photo.png", "-p", "x", "-o", "out.png", "-m", "nope"], "'nope'"),
        (["photo.png", "-p", "x", "-o", "out.png", "--quality", "80"], "--quality"),
        (["photo.png", "-p", "x", "-o", "out.png", "--seed", "seven"], "--seed"),
        (["photo.png", "-p", "x", "-o", "out.png", "--server", "http://127.0.0.1:1"], "SEGMIND_API_KEY"),
        (["photo.png", "-p", "x", "-o", "out.png", "--server", "http://127.0.0.1:1", "--key", "k"], "127.0.0.1:1"),
    ],
)
def test_bad_usage_is_refused_before_any_work(darkroom, tmp_path, photo, words, said):
    """What can't work is refused at once, with what to do, and leaves no file."""
    (tmp_path / "folder.png").mkdir()
    ran = darkroom("edit", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out.png").exists()


def test_the_key_may_come_from_the_sdks_variable(darkroom, monkeypatch, photo):
    """Whoever has set up the SDK needs no --key."""
    monkeypatch.setenv("SEGMIND_API_KEY", "dk_x")
    ran = darkroom("edit", photo, "-p", "x", "-o", "out.png", "--server", "http://127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert "no answer from http://127.0.0.1:1" in ran.err


def test_a_result_is_put_in_place_whole(tmp_path):
    """The file is the new one or the old one, and no draft stays behind."""
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    write_atomically(out, b"new")
    assert out.read_bytes() == b"new"
    with pytest.raises(InvalidField, match="--out"):
        write_atomically(tmp_path / "gone" / "out.png", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
