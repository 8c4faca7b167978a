//! Loom's atomics with mortality: every operation is a step, and an actor that has used up its
//! steps dies there.
//!
//! [`mortal`] runs an actor with so many steps to live. Dying unwinds to `mortal` without running
//! any further operation of the actor, which is what SIGKILL between two instructions does:
//! everything before is done, nothing after is. A model enumerates the number of steps and thus
//! tries a death at every place, in the very code that runs in production.
//!
//! A model should run with [`exchange`] off and on. Off, a load may answer any value that the
//! memory model allows. But loom remembers only the last access to a word when it looks for
//! orders to try, so a thread that loads a word and then stores to it hides from loom that others
//! had loaded it before, and orders are missed. On, every access is a read-modify-write of the
//! newest value, and no order is missed.

use loom::sync::atomic as real;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;

loom::thread_local! {
    static LEFT: Cell<Option<usize>> = Cell::new(None);
}

std::thread_local! {
    // All of a model's threads are coroutines of one real one.
    static EXCHANGE: Cell<bool> = const { Cell::new(false) };
}

/// Whether loads and stores are read-modify-writes from now on, in models of this thread.
pub fn exchange(yes: bool) {
    EXCHANGE.with(|e| e.set(yes));
}

/// The actor died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Died;

/// Runs `actor` for at most `steps` operations on shared words.
///
/// # Errors
/// [`Died`] when it needed more.
pub fn mortal<R>(steps: usize, actor: impl FnOnce() -> R) -> Result<R, Died> {
    LEFT.with(|left| left.set(Some(steps)));
    let result = catch_unwind(AssertUnwindSafe(actor));
    LEFT.with(|left| left.set(None));
    result.map_err(|why| match why.downcast::<Died>() {
        Ok(_) => Died,
        Err(other) => resume_unwind(other),
    })
}

/// One operation: the actor dies here if it has no steps left.
pub fn step() {
    let died = LEFT.with(|left| match left.get() {
        Some(0) => true,
        Some(n) => {
            left.set(Some(n - 1));
            false
        }
        None => false,
    });
    if died {
        // No panic hook runs and nothing is printed: dying is what the model wants.
        resume_unwind(Box::new(Died));
    }
}

/// A fence.
pub fn fence(order: Ordering) {
    step();
    real::fence(order);
}

/// Orders the compiler only; loom knows no weaker fence.
pub fn compiler_fence(order: Ordering) {
    real::fence(order);
}

macro_rules! atomic {
    ($name:ident, $int:ty) => {
        /// An atomic integer whose operations are steps.
        #[derive(Debug)]
        pub struct $name(real::$name);

        impl $name {
            /// With a first value.
            #[must_use]
            pub fn new(value: $int) -> Self {
                Self(real::$name::new(value))
            }

            /// Loads.
            pub fn load(&self, order: Ordering) -> $int {
                step();
                if EXCHANGE.with(Cell::get) {
                    return self.0.fetch_add(0, order);
                }
                self.0.load(order)
            }

            /// Stores.
            pub fn store(&self, value: $int, order: Ordering) {
                step();
                if EXCHANGE.with(Cell::get) {
                    self.0.swap(value, order);
                    return;
                }
                self.0.store(value, order);
            }

            /// Swaps.
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.swap(value, order)
            }

            /// Ors and answers what was there.
            pub fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_or(value, order)
            }

            /// Adds and answers what was there.
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                step();
                self.0.fetch_add(value, order)
            }

            /// Compares and swaps.
            ///
            /// # Errors
            /// The value found, when it is not the expected one.
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
