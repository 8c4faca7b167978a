//! Crash points: places where a test has a daemon die, between every two steps that others can
//! see. Compiled in by the feature `crash-points` only; without it [`reach`] is nothing.
//!
//! A test makes a [`Trigger`] (a memfd) and names it in the environment of the supervisor as
//! [`VARIABLE`]; every daemon maps it at its start ([`install`]). It counts how often each
//! service reaches each point, and has one service killed, by `SIGKILL` to itself, when it reaches
//! one point for the nth time. Applications do not install it and never die of it.
//!
//! One point may be in several places, or be passed for several kinds of things: each is a *site*
//! ([`Site`]), which the trigger finds by itself, and a test has the daemon die at each.
//!
//! Adding a step that others can see means adding its point here; ARCHITECTURE.md lists them all
//! and a test compares the two.

use abi::ServiceId;

/// Environment variable with the path of the trigger's memory.
pub const VARIABLE: &str = "STRATA_CRASH_POINTS";

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal;)+) => {
        /// A point. The name of one is where the process is when it dies.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Point { $($(#[doc = $doc])+ $point,)+ }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name),+ }
            }
        }
    };
}

points! {
    /// A slot was allocated: it is ours and published nowhere.
    SlotAllocated = "slot-allocated";
    /// The second slot of a packet was claimed, the first is still the neighbour's.
    ExtraClaimed = "extra-claimed";
    /// A packet was claimed, its place in the ring not given back.
    SlotClaimed = "slot-claimed";
    /// A slot was freed; a second one of the packet may not be.
    SlotFreed = "slot-freed";
    /// A handle is in the ring, behind the published end.
    RingWritten = "ring-written";
    /// The ring's end is published, nobody was woken.
    RingPublished = "ring-published";
    /// Places in the ring were given back.
    RingAdvanced = "ring-advanced";
    /// The neighbour's eventfd was written, its armed word not masked.
    BellSignalled = "bell-signalled";
    /// The own bell is armed, the last look at the inputs not taken.
    BellArmed = "bell-armed";
    /// The older copy of a record is written, the word names the other.
    RecordWritten = "record-written";
    /// The word names the new copy.
    RecordFlipped = "record-flipped";
    /// A record was taken out of use.
    RecordCleared = "record-cleared";
    /// A batch was taken in, nothing of it committed.
    Polled = "polled";
    /// A batch was committed, nothing of it let out.
    Committed = "committed";
    /// A batch was let out except for what the links and the store hold.
    Released = "released";
    /// Links were flushed, descriptors not stored.
    Flushed = "flushed";
    /// Descriptors were sent to the store.
    StoreSent = "store-sent";
    /// At the start: everything is attached, nothing swept.
    Attached = "attached";
    /// At the start: the predecessor's slots are swept.
    Swept = "swept";
    /// Some connections are taken up and served, others are not.
    HalfLoaded = "half-loaded";
    /// At the start: state is restored, neighbours are not woken.
    Restored = "restored";
    /// At the start: neighbours are woken, the supervisor does not know that we are ready.
    Woken = "woken";
    /// A request was carried out in memory, its effect not committed.
    RequestTaken = "request-taken";
    /// A request's reply was sent, the request not taken off.
    ReplySent = "reply-sent";
    /// The request was taken off.
    RequestConsumed = "request-consumed";
    /// A session's record is committed, its memory not stored.
    SessionMade = "session-made";
    /// A socket's pair is made and its storing queued.
    ShadowMade = "shadow-made";
    /// A connection's descriptor was sent to its listener's application.
    HandOverSent = "hand-over-sent";
    /// Some words are those of a connection that nobody has any more, others of its next life.
    HalfRevoked = "half-revoked";
    /// A position or a state was shown to the application, no token written.
    PositionShown = "position-shown";
    /// Some words of a socket's rings are shown, others are those of before.
    RingsHalfShown = "rings-half-shown";
    /// How much was acknowledged is shown, no token written.
    RoomShown = "room-shown";
    /// That a socket is connected is shown, no token written.
    ConnectedShown = "connected-shown";
    /// A reset's error and state are shown, the descriptor has not hung up.
    ResetShown = "reset-shown";
    /// Where urgent data is is shown, not that it is there.
    UrgentShown = "urgent-shown";
    /// That urgent data is there is noted, its byte not written.
    UrgentMarked = "urgent-marked";
    /// The byte that says that urgent data is there was written.
    UrgentSent = "urgent-sent";
    /// A readiness token was written.
    TokenWritten = "token-written";
    /// A stuffed shadow was drained.
    ShadowDrained = "shadow-drained";
    /// The peer's end was shown.
    EndShown = "end-shown";
    /// A socket's slot was freed, its descriptor not forgotten.
    SocketFreed = "socket-freed";
    /// A writer is shut out of a buffer whose pages are to be given back.
    WriterShutOut = "writer-shut-out";
    /// Pages of a buffer were given back.
    PagesGiven = "pages-given";
    /// What a link says of a neighbour is half written.
    LinkHalfSaid = "link-half-said";
    /// Supervisor: a daemon's message was copied to the keeper, not taken off its channel.
    MessageCopied = "message-copied";
    /// Supervisor: a daemon's message was taken off, not carried out.
    MessageTaken = "message-taken";
    /// Supervisor: a daemon's message was carried out.
    MessageDone = "message-done";
    /// Supervisor: a daemon has a new process that the keeper does not know.
    ProcessMade = "process-made";
    /// Supervisor: the keeper knows a daemon's new process, which has no plumbing.
    WorkerKept = "worker-kept";
    /// Supervisor: a daemon's new process was sent its plumbing and what is stored.
    PlumbingSent = "plumbing-sent";
    /// Supervisor: what a dead daemon had sent was taken, the keeper knows its process still.
    DeadDrained = "dead-drained";
    /// Supervisor: the keeper was told to forget a dead process.
    WorkerForgotten = "worker-forgotten";
    /// Supervisor: the keeper has handed a part of everything over.
    HalfFetched = "half-fetched";
    /// Supervisor: the keeper has handed everything over, nothing was made of it.
    Fetched = "fetched";
    /// Supervisor: a daemon that runs was adopted, others may not be.
    HalfAdopted = "half-adopted";
    /// Keeper: a message of the supervisor was taken off, not carried out.
    KeeperHeard = "keeper-heard";
    /// Keeper: a message of the supervisor was carried out.
    KeeperDone = "keeper-done";
    /// A frame was written to the device, its slot not freed.
    DeviceWritten = "device-written";
    /// A frame was read from the device, its handle in no ring.
    DeviceRead = "device-read";
}

/// By what number the supervisor, which is no service, is armed and counted.
pub const SUPERVISOR: ServiceId = ServiceId(62);
/// By what number the keeper is.
pub const KEEPER: ServiceId = ServiceId(63);

/// Attaches to the trigger that the environment names, as `me`; without one nothing happens.
pub fn install(me: ServiceId) {
    #[cfg(all(feature = "crash-points", not(feature = "loom")))]
    armed::install(me);
    #[cfg(not(all(feature = "crash-points", not(feature = "loom"))))]
    let _ = me;
}

/// The process is at `point`.
#[inline]
#[track_caller]
pub fn reach(point: Point) {
    reach_for(point, 0);
}

/// The process is at `point`, for one of several kinds of things that the same code serves.
#[inline]
#[track_caller]
pub fn reach_for(point: Point, kind: u32) {
    #[cfg(all(feature = "crash-points", not(feature = "loom")))]
    armed::reach(point, kind, core::panic::Location::caller());
    #[cfg(not(all(feature = "crash-points", not(feature = "loom"))))]
    let _ = (point, kind);
}

/// The process is about to look into these bytes. A test can have it die of what is in them
/// ([`Trigger::poison`]).
#[inline]
pub fn inspect(bytes: &[u8]) {
    #[cfg(all(feature = "crash-points", not(feature = "loom")))]
    armed::inspect(bytes);
    #[cfg(not(all(feature = "crash-points", not(feature = "loom"))))]
    let _ = bytes;
}

#[cfg(all(feature = "crash-points", not(feature = "loom")))]
mod armed;
#[cfg(all(feature = "crash-points", not(feature = "loom")))]
mod sites;
#[cfg(all(feature = "crash-points", not(feature = "loom")))]
mod trigger;

#[cfg(all(feature = "crash-points", not(feature = "loom")))]
pub use armed::Action;
#[cfg(all(feature = "crash-points", not(feature = "loom")))]
pub use sites::Site;
#[cfg(all(feature = "crash-points", not(feature = "loom")))]
pub use trigger::Trigger;
