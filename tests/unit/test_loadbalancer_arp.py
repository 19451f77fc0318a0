"""ARP packets, to and from wire."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from kubesvc.loadbalancer.announce.arp import ArpFrame, announcement, reply

OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
VIP, ASKER = IPv4Address("172.29.7.200"), IPv4Address("172.29.7.254")

# who-has 172.29.7.200 tell 172.29.7.254, as Linux sends it
QUESTION = bytes.fromhex(
    "ffffffffffff 020000000002 0806 0001 0800 06 04 0001 020000000002 ac1d07fe 000000000000 ac1d07c8"
)


def test_a_question_is_read_and_written_back() -> None:
    question = ArpFrame.from_wire(QUESTION)
    assert question is not None
    assert (question.operation, question.sender_ip, question.target_ip) == (1, ASKER, VIP)
    assert question.sender_mac == THEIRS
    assert question.to_wire() == QUESTION


def test_padding_of_a_short_ethernet_frame_is_ignored() -> None:
    assert ArpFrame.from_wire(QUESTION + bytes(18)) == ArpFrame.from_wire(QUESTION)


def test_a_reply_goes_to_who_asked() -> None:
    question = ArpFrame.from_wire(QUESTION)
    assert question is not None
    assert reply(question, OURS).to_wire().hex(" ", 6) == bytes.fromhex(
        "020000000002 020000000001 0806 0001 0800 06 04 0002 020000000001 ac1d07c8 020000000002 ac1d07fe"
    ).hex(" ", 6)


def test_an_announcement_is_a_broadcast_request_for_itself() -> None:
    assert announcement(VIP, OURS).to_wire().hex(" ", 6) == bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 ac1d07c8 000000000000 ac1d07c8"
    ).hex(" ", 6)


@pytest.mark.parametrize(
    "frame",
    [
        QUESTION[:41],
        b"",
        QUESTION[:12] + b"\x86\xdd" + QUESTION[14:],
        QUESTION[:14] + b"\x00\x06" + QUESTION[16:],
        QUESTION[:18] + b"\x08" + QUESTION[19:],
    ],
    ids=["truncated", "empty", "ipv6", "not-ethernet", "long-hardware-address"],
)
def test_what_is_not_arp_for_ipv4_is_left_alone(frame: bytes) -> None:
    assert ArpFrame.from_wire(frame) is None
