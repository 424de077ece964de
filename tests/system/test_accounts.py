"""Accounts mode: who may log in, `mqtt-im user …`, recipients that are no account."""

from __future__ import annotations

from functools import partial

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.im import ImClient
from tests.support.raw import Refused, eventually
from tests.system.conftest import Clients, Name
from tests.system.test_presence import becomes, states
from tests.system.test_presence import topic as presence_of

CONFIG = {"auth.mode": "accounts", "limits.failed_logins_per_minute": 1000}

PASSWORD = "correct horse"


def add(server: ServerProcess, user: str, password: str = PASSWORD) -> None:
    result = server.command("user", "add", user, "--password-stdin", stdin=password + "\n")
    assert result.returncode == 0, result.stderr


def refusal(im: Clients, user: str, password: str | None) -> int:
    with pytest.raises(Refused) as refused:
        im.sign_in(user, password=password)
    return refused.value.code


def test_an_account_logs_in_beside_the_running_server(im: Clients, name: Name) -> None:
    """… which sees the change at once; a trailing newline is not part of the password."""
    alice, bob = name("alice"), name("bob")
    add(im.server, alice)
    add(im.server, bob, "pässwörd")
    one, other = im.online(alice, password=PASSWORD), im.online(bob, password="pässwörd")
    one.say(bob, "hi")
    other.wait("msg", body="hi")


@pytest.mark.parametrize("password", ["wrong", "", None, PASSWORD + "\n", PASSWORD.upper()])
def test_a_wrong_password(im: Clients, name: Name, password: str | None) -> None:
    alice = name("alice")
    add(im.server, alice)
    assert refusal(im, alice, password) in (4, 5)


def test_an_unknown_user(im: Clients, name: Name) -> None:
    assert refusal(im, name("nobody"), "x") in (4, 5)


def test_a_failed_login_touches_no_session(im: Clients, name: Name) -> None:
    """Authentication comes before the take-over and before a clean session wipes anything."""
    alice, bob = name("alice"), name("bob")
    add(im.server, alice)
    add(im.server, bob)
    victim = im.online(alice, clean=False, password=PASSWORD)
    for clean in (True, False):
        with pytest.raises(Refused):
            im.sign_in(alice, password="wrong", clean=clean)
    victim.flush()
    victim.disconnect()
    with pytest.raises(Refused):
        im.sign_in(alice, password="wrong", clean=True)
    assert im.sign_in(alice, password=PASSWORD, clean=False).session_present is True


def test_to_a_name_that_is_no_account(im: Clients, name: Name) -> None:
    """not_found; nothing changed."""
    alice, bob = name("alice"), name("bob")
    add(im.server, alice)
    add(im.server, bob)
    client = im.online(alice, password=PASSWORD)
    client.refused("send", "not_found", to=name("nobody"), body="x")
    group = name("#g")
    client.refused("group.create", "not_found", group=group, members=[bob, name("nobody")])
    client.must("group.create", group=group, members=[bob])
    client.refused("group.add", "not_found", group=group, members=[name("nobody")])
    assert len(client.must("group.info", group=group)["members"]) == 2


def test_removing_an_account_closes_its_connections(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    add(im.server, alice)
    add(im.server, bob)
    clients = [im.online(alice, device, password=PASSWORD) for device in ("phone", "laptop")]
    other = im.online(bob, password=PASSWORD)
    assert im.server.command("user", "remove", alice).returncode == 0
    for client in clients:
        client.wait_closed()
    assert refusal(im, alice, PASSWORD) in (4, 5)
    other.flush()


@pytest.mark.parametrize("erase", [False, True], ids=["kept", "erased"])
def test_who_is_removed_is_offline_to_watchers(im: Clients, name: Name, erase: bool) -> None:
    """… who connect later, too."""
    alice, bob = name("alice"), name("bob")
    for user in (alice, bob):
        add(im.server, user)
    watcher, gone = im.online(alice, password=PASSWORD), im.online(bob, password=PASSWORD)
    watcher.say(bob, "hi")
    watcher.subscribe(presence_of(bob))
    becomes(watcher, bob, "online")
    assert im.server.command("user", "remove", bob, *["--erase"][: int(erase)]).returncode == 0
    gone.until_closed()
    becomes(watcher, bob, "offline")
    later = im.online(alice, "tablet", password=PASSWORD)
    later.subscribe(presence_of(bob))
    later.flush()
    assert [state["state"] for state in states(later, bob)] in ([], ["offline"])


def test_the_groups_of_a_removed_owner_are_handed_on(im: Clients, name: Name) -> None:
    alice, bob, carol = name("alice"), name("bob"), name("carol")
    for user in (alice, bob, carol):
        add(im.server, user)
    owner, other = im.online(alice, password=PASSWORD), im.online(bob, password=PASSWORD)
    group = owner.must("group.create", members=[bob, carol])["group"]
    theirs = other.must("group.create", members=[alice])["group"]
    assert im.server.command("user", "remove", alice).returncode == 0
    change = other.wait("msg", conv=group, system={"event": "group.role", "user": bob, "role": "owner"})
    assert change["from"] == alice
    other.must("group.rename", group=group, name="ours")
    members = {member["user"] for member in other.must("group.info", group=theirs)["members"]}
    assert members == {alice, bob}, "only what the user owned is left"


@pytest.mark.parametrize("how", ["removed", "removed and made anew"])
def test_they_are_handed_on_where_no_server_runs(own_server: ServerProcess, own_im: Clients, how: str) -> None:
    for user in ("alice", "bob"):
        add(own_server, user)
    group = own_im.online("alice", password=PASSWORD).must("group.create", members=["bob"])["group"]
    own_server.stop()
    assert own_server.command("user", "remove", "alice").returncode == 0
    if how == "removed and made anew":
        add(own_server, "alice")
    for _ in range(2):  # and not once more at the next start
        own_server.restart(kill=True) if own_server.running else own_server.start()
        bob = own_im.online("bob", password=PASSWORD)
        eventually(partial(is_owner, bob, group), "bob to be the owner")
        assert [item["system"]["event"] for item in bob.must("history", conv=group)["items"]] == [
            "group.create",
            "group.leave",
            "group.role",
        ]


def is_owner(client: ImClient, group: str) -> bool:
    return bool(client.must("group.info", group=group)["members"] == [{"user": client.user, "role": "owner"}])


def test_a_changed_password_counts_at_once(im: Clients, name: Name) -> None:
    alice = name("alice")
    add(im.server, alice)
    im.sign_in(alice, password=PASSWORD).disconnect()
    result = im.server.command("user", "passwd", alice, "--password-stdin", stdin="new password")
    assert result.returncode == 0, result.stderr

    def old_fails() -> bool:
        try:
            im.sign_in(alice, password=PASSWORD).disconnect()
        except Refused:
            return True
        return False

    eventually(old_fails, "the old password is refused")
    im.sign_in(alice, password="new password")


def test_user_list_and_mistakes(im: Clients, name: Name) -> None:
    """Exit codes: 0 well; 1 it failed; 2 the call is wrong. Errors are one line on stderr."""
    alice = name("alice")
    add(im.server, alice)
    listed = im.server.command("user", "list")
    assert listed.returncode == 0
    assert alice in listed.stdout
    again = im.server.command("user", "add", alice, "--password-stdin", stdin="xxxxxxxx")
    assert (again.returncode, len(again.stderr.strip().splitlines())) == (1, 1)
    gone = im.server.command("user", "remove", name("nobody"))
    assert (gone.returncode, len(gone.stderr.strip().splitlines())) == (1, 1)
    wrong = im.server.command("user", "add", "no/name", "--password-stdin", stdin="xxxxxxxx")
    assert wrong.returncode in (1, 2)
    assert "Traceback" not in wrong.stderr
    made = im.server.command("user", "add", name("made"))
    assert made.returncode in (0, 2)


def test_a_token_logs_in(im: Clients, name: Name) -> None:
    alice = name("alice")
    add(im.server, alice)
    result = im.server.command("user", "token", alice)
    assert result.returncode == 0, result.stderr
    im.online(alice, password=result.stdout.strip().splitlines()[-1]).flush()


def test_without_a_username_nobody_enters(im: Clients, name: Name) -> None:
    client = im.socket(name("alice"))
    with pytest.raises(Refused) as refused:
        client.connect(f"{name('alice')}:phone", username=None)
    assert refused.value.code in (4, 5)


def test_accounts_survive_sigkill(own_server: ServerProcess, own_im: Clients) -> None:
    add(own_server, "alice")
    own_server.restart(kill=True)
    own_im.online("alice", password=PASSWORD).flush()
