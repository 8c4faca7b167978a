//! Crash points: places where a test has a daemon die, between every two steps that others can
//! see. Compiled in by the feature `crash-points` only; without it [`reach`] is nothing.
//!
//! A test makes a [`Trigger`] (a memfd) and names it in the environment of the supervisor as
//! [`VARIABLE`]; every daemon maps it at its start ([`install`]). It counts how often each
//! service reaches each point, and has one service killed, by `SIGKILL` to itself, when it reaches
//! one point for the nth time. Applications do not install it and never die of it.
//!
//! Adding a step that others can see means adding its point here; ARCHITECTURE.md lists them all
//! and a test compares the two.

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
    /// A readiness token was written.
    TokenWritten = "token-written";
    /// A stuffed shadow was drained.
    ShadowDrained = "shadow-drained";
    /// The peer's end was shown.
    EndShown = "end-shown";
    /// A socket's slot was freed, its descriptor not forgotten.
    SocketFreed = "socket-freed";
    /// A frame was written to the device, its slot not freed.
    DeviceWritten = "device-written";
    /// A frame was read from the device, its handle in no ring.
    DeviceRead = "device-read";
}

/// The process is at `point`.
#[inline]
pub fn reach(point: Point) {
    #[cfg(all(feature = "crash-points", not(feature = "loom")))]
    armed::reach(point);
    #[cfg(not(all(feature = "crash-points", not(feature = "loom"))))]
    let _ = point;
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
pub use armed::{Action, Trigger, install};

#[cfg(all(feature = "crash-points", not(feature = "loom")))]
mod armed {
    use super::{Point, VARIABLE};
    use crate::sync::{AtomicU32, Ordering};
    use crate::{Mapping, ShmError, mapping};
    use abi::ServiceId;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::sync::OnceLock;

    /// Words: point + 1 that is armed (0: none), service, reaches left, deaths so far, action;
    /// services that are to end together (a bit each) and at which point + 1;
    /// then service + 1 that is poisoned (0: none) and by which bytes, those in four words;
    /// then from [`COUNTS`] on how often each service (64) reached each point (64).
    const ARMED: usize = 0;
    const SERVICE: usize = 1;
    const LEFT: usize = 2;
    const DEATHS: usize = 3;
    const ACTION: usize = 4;
    const TOGETHER: usize = 5;
    const WHERE: usize = 6;
    const POISONED: usize = 8;
    const POISON: usize = 12;
    const COUNTS: usize = 64;
    const SIZE: usize = (COUNTS + 64 * 64) * 4;

    /// What a service does at the point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[repr(u32)]
    pub enum Action {
        /// `SIGKILL` to itself.
        Kill = 0,
        /// `abort(3)`.
        Abort = 1,
        /// A Rust panic.
        Panic = 2,
        /// A busy loop for ever.
        Loop = 3,
        /// Reaches its memory limit.
        Exhaust = 4,
    }

    static INSTALLED: OnceLock<(Mapping, ServiceId)> = OnceLock::new();

    fn word(memory: &Mapping, index: usize) -> Option<&AtomicU32> {
        memory.u32_at(index * 4)
    }

    fn load(memory: &Mapping, index: usize) -> u32 {
        word(memory, index).map_or(0, |w| w.load(Ordering::Acquire))
    }

    fn count(service: ServiceId, point: Point) -> usize {
        COUNTS + usize::from(service.0 % 64) * 64 + point as usize
    }

    /// Attaches to the trigger that the environment names, as `me`; without one nothing happens.
    pub fn install(me: ServiceId) {
        let Some(path) = std::env::var_os(VARIABLE) else {
            return;
        };
        let file = File::options().read(true).write(true).open(path);
        if let Ok(memory) = file
            .map_err(|_| ())
            .and_then(|file| Mapping::map(&file, SIZE, true).map_err(|_| ()))
        {
            let _ = INSTALLED.set((memory, me));
        }
    }

    pub(super) fn reach(point: Point) {
        let Some((memory, me)) = INSTALLED.get() else {
            return;
        };
        if let Some(count) = word(memory, count(*me, point)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if load(memory, WHERE) == point as u32 + 1 && leaves_together(memory, *me) {
            if let Some(deaths) = word(memory, DEATHS) {
                deaths.fetch_add(1, Ordering::AcqRel);
            }
            end(load(memory, ACTION));
        }
        if load(memory, ARMED) != point as u32 + 1 || load(memory, SERVICE) != u32::from(me.0) {
            return;
        }
        let left = word(memory, LEFT).map_or(0, |w| w.fetch_sub(1, Ordering::AcqRel));
        if left != 1 {
            return;
        }
        for (index, value) in [(ARMED, 0), (DEATHS, load(memory, DEATHS) + 1)] {
            if let Some(word) = word(memory, index) {
                word.store(value, Ordering::Release);
            }
        }
        end(load(memory, ACTION));
    }

    const fn bit(service: ServiceId) -> u32 {
        1 << (service.0 % 32)
    }

    /// Whether `me` is one of those that end together; a successor is not.
    fn leaves_together(memory: &Mapping, me: ServiceId) -> bool {
        word(memory, TOGETHER).is_some_and(|services| {
            services.load(Ordering::Acquire) & bit(me) != 0
                && services.fetch_and(!bit(me), Ordering::AcqRel) & bit(me) != 0
        })
    }

    pub(super) fn inspect(bytes: &[u8]) {
        let Some((memory, me)) = INSTALLED.get() else {
            return;
        };
        if load(memory, POISONED) != u32::from(me.0) + 1 {
            return;
        }
        let mut poison = [0; 16];
        let known = memory.copy_out(POISON * 4, &mut poison);
        if known && bytes.windows(poison.len()).any(|at| at == poison) {
            if let Some(deaths) = word(memory, DEATHS) {
                deaths.fetch_add(1, Ordering::AcqRel);
            }
            end(load(memory, ACTION));
        }
    }

    #[allow(clippy::panic, reason = "that is what the test asks for")]
    fn end(action: u32) -> ! {
        const PANIC: u32 = Action::Panic as u32;
        const LOOP: u32 = Action::Loop as u32;
        const EXHAUST: u32 = Action::Exhaust as u32;
        const KILL: u32 = Action::Kill as u32;
        match action {
            KILL => drop(kill(Pid::this(), Signal::SIGKILL)),
            PANIC => panic!("at a crash point"),
            LOOP => loop {
                std::hint::spin_loop();
            },
            EXHAUST => {
                let _ = setrlimit(Resource::RLIMIT_AS, 1 << 20, 1 << 20);
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    // The allocator aborts when there is no more.
                    hoard.push(vec![1; 1 << 20]);
                }
            }
            _ => {}
        }
        // A signal to oneself is delivered before the call returns; this is for the compiler.
        std::process::abort();
    }

    /// A test's side.
    #[derive(Debug)]
    pub struct Trigger {
        memory: Mapping,
        fd: OwnedFd,
    }

    impl Trigger {
        /// A trigger that is not armed.
        ///
        /// # Errors
        /// When the kernel refuses.
        pub fn new() -> Result<Self, ShmError> {
            let fd = mapping::create("strata-crash-points", SIZE)?;
            Ok(Self {
                memory: Mapping::map(&fd, SIZE, true)?,
                fd,
            })
        }

        /// What [`VARIABLE`] is to be set to; good while this process lives.
        #[must_use]
        pub fn path(&self) -> String {
            use std::os::fd::AsRawFd;
            format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
        }

        /// Has `service` die when it reaches `point` for the `nth` time (from 1) from now on.
        pub fn arm(&self, service: ServiceId, point: Point, nth: u32) {
            self.arm_for(service, point, nth, Action::Kill);
        }

        /// As [`Trigger::arm`], for another end.
        pub fn arm_for(&self, service: ServiceId, point: Point, nth: u32, action: Action) {
            let words = [
                (ARMED, 0),
                (ACTION, action as u32),
                (SERVICE, u32::from(service.0)),
                (LEFT, nth.max(1)),
                (ARMED, point as u32 + 1),
            ];
            for (index, value) in words {
                if let Some(word) = word(&self.memory, index) {
                    word.store(value, Ordering::Release);
                }
            }
        }

        /// Has all of `services` (numbers below 32) end when each of them reaches `point` next.
        pub fn arm_together(&self, services: &[ServiceId], point: Point, action: Action) {
            let bits = services
                .iter()
                .fold(0, |bits, &service| bits | bit(service));
            for (index, value) in [
                (TOGETHER, 0),
                (ACTION, action as u32),
                (WHERE, point as u32 + 1),
                (TOGETHER, bits),
            ] {
                if let Some(word) = word(&self.memory, index) {
                    word.store(value, Ordering::Release);
                }
            }
        }

        /// Has `service` end whenever it looks into bytes that have `poison` in them.
        pub fn poison(&self, service: ServiceId, poison: [u8; 16], action: Action) {
            let _ = self.memory.copy_in(POISON * 4, &poison);
            for (index, value) in [
                (ACTION, action as u32),
                (POISONED, u32::from(service.0) + 1),
            ] {
                if let Some(word) = word(&self.memory, index) {
                    word.store(value, Ordering::Release);
                }
            }
        }

        /// Nobody is to die any more.
        pub fn disarm(&self) {
            if let Some(word) = word(&self.memory, ARMED) {
                word.store(0, Ordering::Release);
            }
        }

        /// Deaths so far.
        #[must_use]
        pub fn deaths(&self) -> u32 {
            load(&self.memory, DEATHS)
        }

        /// How often `service` has reached `point`.
        #[must_use]
        pub fn reached(&self, service: ServiceId, point: Point) -> u32 {
            load(&self.memory, count(service, point))
        }
    }
}
