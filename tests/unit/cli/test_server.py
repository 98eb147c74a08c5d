from darkroom.cli.making import LOCAL_KEY, local_key
from darkroom.cli.server import first_key
from darkroom.keys import create_key, digest
from darkroom.settings import read_settings
from darkroom.stores import open_ledger


def test_the_first_key_is_made_once():
    """Only a ledger that has had no client's key gets one; a revoked one counts, this machine's own does not."""
    ledger = open_ledger(read_settings())
    local_key(ledger)
    secret = first_key(ledger)
    assert ledger.find_key(digest(secret)).name == "first"
    assert first_key(ledger) is None
    ledger.revoke_key("first")
    assert first_key(ledger) is None
    ledger.close()


def test_the_local_key_is_made_when_missing():
    """Edits in this process share one key, which comes back after it was revoked."""
    ledger = open_ledger(read_settings())
    create_key(ledger, name="other", credits=1)
    key = local_key(ledger)
    assert key.name == LOCAL_KEY
    assert local_key(ledger) == key
    ledger.revoke_key(LOCAL_KEY)
    assert local_key(ledger).id != key.id
    ledger.close()
