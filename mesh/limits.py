"""Every bound of Trellis in one place, with the relations between them asserted.

Names carry their unit. A bound that an operator may change lives in
mesh.settings with these as defaults or ceilings.
"""

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20

# ---- names and values -----------------------------------------------------------
NAME_CHARS_MAX: Final = 63
DOCUMENT_NAME_CHARS_MAX: Final = 255
DOCUMENT_BYTES_MAX: Final = 512 * KIB
DOCUMENTS_MAX: Final = 10_000
DOCUMENT_HISTORY_MAX: Final = 16
#: Values of present documents together, and values kept as history together.
DOCUMENTS_BYTES_MAX: Final = 64 * MIB
HISTORY_BYTES_MAX: Final = 64 * MIB
#: Deleted documents whose version counter is remembered one by one.
TOMBSTONES_MAX: Final = 10_000
SERVICES_MAX: Final = 500
INSTANCES_PER_SERVICE_MAX: Final = 32
ENVIRONMENT_BYTES_MAX: Final = 32 * KIB
EVENTS_MAX: Final = 2_000
EVENT_CHARS_MAX: Final = 1_000
EVENT_FACTS_MAX: Final = 32
#: A whole declaration in canonical form.
SPEC_BYTES_MAX: Final = 128 * KIB
#: Addresses, versions and the like, where nothing narrower holds.
TEXT_CHARS_MAX: Final = 255
SESSIONS_MAX: Final = 4_096
SESSION_CHARS_MAX: Final = 128
SESSION_OUTCOMES_MAX: Final = 64
TOKENS_MAX: Final = 64
REVOKED_MAX: Final = 4_096
SECRETS_MAX: Final = 256
SECRET_BYTES_MAX: Final = 64 * KIB
TRUST_BYTES_MAX: Final = 256 * KIB
#: Owned names, host names and service names ever used: their counters are kept for ever.
COUNTERS_MAX: Final = 16_384
INSTANCES_PER_HOST_MAX: Final = 1_000
#: Changes kept for watchers that fall behind, by number and by document bytes.
CHANGES_KEPT_MAX: Final = 8_192
CHANGES_KEPT_BYTES_MAX: Final = 16 * MIB
#: Log entries between two comparisons of the state hash.
STATE_HASH_PERIOD: Final = 64
HOSTS_MAX: Final = 15
VOTERS: Final = (1, 3, 5, 7)

# ---- the database -----------------------------------------------------------------
DATABASE_PARAMETERS_MAX: Final = 200
DATABASE_PARAMETER_CHARS_MAX: Final = 1_000
#: A standby so far behind or less may succeed in a switchover; beyond the second it is far behind.
LAG_CLOSE_BYTES_MAX: Final = MIB
LAG_BEHIND_BYTES_MAX: Final = 64 * MIB
#: Timelines that a seal report names, the newest ones.
TIMELINES_MAX: Final = 1_000

#: sun_path of sockaddr_un, less the final zero byte (unix(7)).
SOCKET_PATH_BYTES_MAX: Final = 107

# ---- messages -------------------------------------------------------------------
MESSAGE_BYTES_MAX: Final = 4 * MIB
COMMAND_BYTES_MAX: Final = MIB
APPEND_BYTES_MAX: Final = MIB
SNAPSHOT_CHUNK_BYTES: Final = MIB
SNAPSHOT_BYTES_MAX: Final = 256 * MIB

# ---- queues ---------------------------------------------------------------------
PROPOSALS_PENDING_MAX: Final = 4_096
OUTBOX_MESSAGES_MAX: Final = 512
#: Commands or answers that share one message on a Propose stream.
PROPOSALS_PER_MESSAGE_MAX: Final = 256
PROPOSALS_PER_MESSAGE_BYTES_MAX: Final = 2 * MIB
HEARTBEAT_OUTBOX_MAX: Final = 16
READS_PENDING_MAX: Final = 4_096
WATCHERS_MAX: Final = 1_000
WATCH_BACKLOG_MAX: Final = 1_024
UNCOMMITTED_BYTES_MAX: Final = 16 * MIB
#: At the port for joining hosts, which anybody may reach.
JOIN_CONNECTIONS_MAX: Final = 64

# ---- supervision ----------------------------------------------------------------
#: Exclusive processes of which the fence is still to be told: one that has ended and one that has
#: begun of each instance. Newer news of an instance replaces older; more instances there cannot be.
EXCLUSIVE_NEWS_MAX: Final = 2 * INSTANCES_PER_HOST_MAX
LOG_LINE_BYTES_MAX: Final = 16 * KIB
LOG_BYTES_MAX: Final = 8 * MIB
LOG_FILES_MAX: Final = 4

# ---- time -----------------------------------------------------------------------
HEARTBEAT_MS: Final = 300
LEASE_MS: Final = 1_200
ELECTION_MS_MIN: Final = 1_500
ELECTION_MS_MAX: Final = 2_500
RELEASE_BOUND_MS: Final = 250
#: After a crash proof: time for the kernel and the fence process to clear the dead sidecar's things.
CRASH_RELEASE_MS: Final = 50
#: A fenced host stops its active-active instances too, after this long without traffic.
FENCED_GRACE_MS: Final = 60_000
#: A lost host keeps its instances' places so long: a sidecar that is started again adopts them.
PLACE_KEPT_MS: Final = 2_500
#: The same when the host itself answers and only its sidecar died: it is being started again, and its
#: instances run on meanwhile.
PLACE_KEPT_CRASHED_MS: Final = 8_000
#: Leadership follows the database's primary once that has served for so long: its clients come back first.
LEADER_FOLLOWS_MS: Final = 1_000
CLOCK_RATE_ERROR: Final = 0.001

assert DOCUMENT_BYTES_MAX < COMMAND_BYTES_MAX <= APPEND_BYTES_MAX < MESSAGE_BYTES_MAX
assert 2 * (DOCUMENTS_BYTES_MAX + HISTORY_BYTES_MAX) <= SNAPSHOT_BYTES_MAX
assert DOCUMENT_BYTES_MAX <= CHANGES_KEPT_BYTES_MAX
assert PROPOSALS_PER_MESSAGE_BYTES_MAX + COMMAND_BYTES_MAX < MESSAGE_BYTES_MAX
assert ENVIRONMENT_BYTES_MAX < SPEC_BYTES_MAX < COMMAND_BYTES_MAX
assert LAG_CLOSE_BYTES_MAX * 3 // 2 < LAG_BEHIND_BYTES_MAX
assert SNAPSHOT_CHUNK_BYTES < MESSAGE_BYTES_MAX
assert COMMAND_BYTES_MAX < UNCOMMITTED_BYTES_MAX
assert 3 * HEARTBEAT_MS <= LEASE_MS
assert LEASE_MS * (1 + CLOCK_RATE_ERROR) + RELEASE_BOUND_MS <= ELECTION_MS_MIN < ELECTION_MS_MAX
