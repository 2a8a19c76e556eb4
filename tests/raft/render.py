"""Messages, Readys and statuses as short, stable text for stories."""

from mesh.raft import (
    Append,
    AppendHeartbeat,
    AppendHeartbeatReply,
    AppendReply,
    Entry,
    EntryId,
    EntryKind,
    Membership,
    Message,
    Ready,
    RequestVote,
    RequestVoteReply,
    SnapshotChunk,
    SnapshotReply,
    Status,
)


def entry_id_text(entry_id: EntryId) -> str:
    return f"{entry_id.term}/{entry_id.index}"


def entry_text(entry: Entry) -> str:
    """`term/index` and what it says."""
    if entry.kind is EntryKind.MEMBERSHIP:
        said = f"[{membership_text(Membership.decode(entry.data))}]"
    else:
        said = entry.data.decode() or ("(noop)" if entry.kind is EntryKind.NOOP else "(no data)")
    return f"{entry.term}/{entry.index} {said}"


def entries_text(entries: list[Entry]) -> str:
    return ", ".join(map(entry_text, entries))


def membership_text(membership: Membership) -> str:
    parts = [",".join(membership.voters) or "nobody"]
    labels = ("outgoing", "learners", "witnesses", "demoting")
    parts += [f"{label}={','.join(ids)}" for label in labels if (ids := getattr(membership, label))]
    return " ".join(parts)


def message_text(message: Message) -> str:
    """`from>to Kind term=...` and the fields that matter."""
    head = f"{message.sender}>{message.to} {type(message).__name__} term={message.term}"
    return " ".join([head, *_fields(message)])


def _fields(message: Message) -> list[str]:
    match message:
        case RequestVote():
            flags = [flag for flag in ("pre_vote", "transfer") if getattr(message, flag)]
            return [f"last={entry_id_text(message.last)}", *flags]
        case RequestVoteReply():
            return ["granted" if message.granted else "refused", *["pre_vote"] * message.pre_vote]
        case Append():
            entries = entries_text(list(message.entries))
            return [f"previous={entry_id_text(message.previous)} commit={message.commit} ({entries})"]
        case AppendReply():
            if message.rejected:
                return [f"rejected={message.refused} hint={entry_id_text(message.hint)}"]
            return [f"matched={message.matched}"]
        case AppendHeartbeat():
            return [f"round={message.round} commit={message.commit}"]
        case AppendHeartbeatReply():
            return [f"round={message.round}"]
        case SnapshotChunk():
            end = message.offset + len(message.data)
            size = message.meta.size_bytes
            return [f"last={entry_id_text(message.meta.last)} bytes={message.offset}..{end} of {size}"]
        case SnapshotReply():
            state = "installed" if message.installed else f"next_offset={message.next_offset}"
            return [f"last={entry_id_text(message.last)} {state}"]
        case _:
            return []


def ready_lines(name: str, ready: Ready) -> list[str]:
    """One line per field that holds something, in the order of the host's duties."""
    lines = [f"{name}: at once: {message_text(each)}" for each in ready.messages]
    if ready.snapshot is not None:
        lines.append(f"{name}: store: snapshot {entry_id_text(ready.snapshot.meta.last)}")
    if ready.entries:
        lines.append(f"{name}: store: {entries_text(list(ready.entries))}")
    if ready.hard_state is not None:
        hard = ready.hard_state
        lines.append(f"{name}: store: term={hard.term} vote={hard.vote} commit={hard.commit}")
    lines += [f"{name}: after durable: {message_text(each)}" for each in ready.messages_after_durable]
    return lines + outcome_lines(name, ready)


def outcome_lines(name: str, ready: Ready) -> list[str]:
    """What a Ready means for the host's users."""
    lines = []
    if ready.soft_state is not None:
        soft = ready.soft_state
        lines.append(f"{name}: {soft.role.value} term={soft.term} leader={soft.leader}")
    if ready.snapshot is not None:
        lines.append(f"{name}: installs snapshot {entry_id_text(ready.snapshot.meta.last)}")
    lines += [f"{name}: applies {entry_text(each)}" for each in ready.committed]
    lines += [f"{name}: read {each.request} at {each.index}" for each in ready.reads]
    lines += [f"{name}: read {each} lost" for each in ready.reads_lost]
    return lines


def status_lines(status: Status) -> list[str]:
    lines = [
        f"{status.role.value} term={status.term} vote={status.vote} leader={status.leader}"
        f" commit={status.commit} applied={status.applied}"
        f" first={status.first_index} last={entry_id_text(status.last)} dropped={status.dropped}",
        f"membership {membership_text(status.membership)}",
    ]
    if status.transferring_to:
        lines.append(f"transferring to {status.transferring_to}")
    if status.quorum_confirmed_ticks_ago is not None:
        lines.append(f"quorum confirmed {status.quorum_confirmed_ticks_ago} ticks ago")
    lines += [
        f"{peer.id}: {peer.mode.value} matched={peer.matched} next={peer.next}"
        + ("" if peer.recently_active else " inactive")
        for peer in status.peers
    ]
    return lines
