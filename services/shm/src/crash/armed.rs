//! The side of the process that dies.

use super::sites;
use super::{Point, VARIABLE};
use crate::Mapping;
use crate::sync::{AtomicU32, Ordering};
use abi::ServiceId;
use core::panic::Location;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::sync::OnceLock;

/// Words: point + 1 that is armed (0: none), service, reaches left, deaths so far, action;
/// services that are to end together (a bit each) and at which point + 1;
/// the armed site + 1 (0: any of the point's);
/// then service + 1 that is poisoned (0: none) and by which bytes, those in four words;
/// then from [`COUNTS`] on how often each service (64) reached each point (64);
/// then the sites ([`sites`]).
pub(super) const ARMED: usize = 0;
pub(super) const SERVICE: usize = 1;
pub(super) const LEFT: usize = 2;
pub(super) const DEATHS: usize = 3;
pub(super) const ACTION: usize = 4;
pub(super) const TOGETHER: usize = 5;
pub(super) const WHERE: usize = 6;
pub(super) const SITE: usize = 7;
pub(super) const POISONED: usize = 8;
pub(super) const POISON: usize = 12;
pub(super) const COUNTS: usize = 64;
pub(super) const SIZE: usize = (sites::BEGIN + sites::WORDS) * 4;
const _: () = assert!(COUNTS + 64 * 64 == sites::BEGIN && Point::ALL.len() <= 64);

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

pub(super) fn word(memory: &Mapping, index: usize) -> Option<&AtomicU32> {
    memory.u32_at(index * 4)
}

pub(super) fn load(memory: &Mapping, index: usize) -> u32 {
    word(memory, index).map_or(0, |w| w.load(Ordering::Acquire))
}

pub(super) fn count(service: ServiceId, point: Point) -> usize {
    COUNTS + usize::from(service.0 % 64) * 64 + point as usize
}

/// Attaches to the trigger that the environment names, as `me`; without one nothing happens.
pub(super) fn install(me: ServiceId) {
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

pub(super) fn reach(point: Point, kind: u32, place: &Location<'_>) {
    let Some((memory, me)) = INSTALLED.get() else {
        return;
    };
    if let Some(count) = word(memory, count(*me, point)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let site = sites::note(memory, *me, point, kind, place);
    if load(memory, WHERE) == point as u32 + 1 && leaves_together(memory, *me) {
        if let Some(deaths) = word(memory, DEATHS) {
            deaths.fetch_add(1, Ordering::AcqRel);
        }
        end(load(memory, ACTION));
    }
    if load(memory, ARMED) != point as u32 + 1 || load(memory, SERVICE) != u32::from(me.0) {
        return;
    }
    let armed = load(memory, SITE);
    if armed != 0 && site.is_none_or(|site| site + 1 != armed) {
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

pub(super) const fn bit(service: ServiceId) -> u32 {
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
