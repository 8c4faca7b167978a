//! The descriptor store as a model: a daemon that stores, uses and forgets descriptors, the
//! supervisor, and the keeper, each of which may die between any two steps. All interleavings
//! are explored. What must hold: a daemon that starts is given every descriptor that is in use
//! outside, unless supervisor and keeper were dead at the same time (as they are, too, when the
//! keeper dies while it hands over to a new supervisor).
//!
//! The steps are those of `supervisor::lifecycle` (look at a message, copy it to the keeper, take
//! it off), `supervisor::keeper`, and `keeper::process`. Variants with a deliberate mistake show
//! that the model would find it.

use std::collections::{BTreeSet, HashSet, VecDeque};

type Keys = BTreeSet<u8>;

/// A message of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Store(u8),
    Forget(u8),
}

/// What a daemon does in a life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Send(Message),
    /// The far end is handed out: from here on others hang on the descriptor.
    Use(u8),
    /// Nobody hangs on it any more.
    Unuse(u8),
}

const LIFE: [Step; 6] = [
    Step::Send(Message::Store(1)),
    Step::Use(1),
    Step::Send(Message::Store(2)),
    Step::Use(2),
    Step::Unuse(1),
    Step::Send(Message::Forget(1)),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The supervisor takes a message off before it copies it.
    TakesFirst,
    /// A dead daemon's last messages are not read before its successor starts.
    LeavesLastWords,
    /// The keeper reads the daemons' messages before what the dead supervisor sent it.
    ReadsDaemonsFirst,
    /// A new keeper is given everything between the supervisor's look at a message and its
    /// taking it off.
    StartsInBetween,
    /// The daemon uses a descriptor before it has stored it.
    UsesFirst,
    /// The supervisor looks, finds nothing, and takes what has come since.
    TakesUnseen,
    /// The keeper goes on reading the daemons' messages while it hands over.
    ReadsWhileGiving,
    /// A new supervisor begins with what it has before the keeper has said that it is all.
    BeginsEarly,
    /// The keeper lets go of what it hands over.
    LetsGo,
}

/// What the supervisor found when it looked at the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Look {
    /// It has not looked.
    No,
    /// A message, which it has copied.
    Copied,
    /// Nothing, for [`Mistake::TakesUnseen`].
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// Steps of its life that the daemon has done; none: dead.
    daemon: Option<usize>,
    /// How far the last life had got: the next one goes on there, as its records say.
    progress: usize,
    /// In use outside.
    used: Keys,
    /// The daemon's channel: a queue in the kernel.
    channel: VecDeque<Message>,
    supervisor: Option<Keys>,
    /// What the supervisor is about to do with the message that it looked at.
    looked: Look,
    /// For [`Mistake::TakesFirst`]: taken and not copied.
    taken: Option<Message>,
    keeper: Option<Keys>,
    /// While the keeper hands over to a new supervisor: what that has been given, and what it has
    /// not been given yet.
    giving: Option<(Keys, Keys)>,
    /// From the supervisor to the keeper: copies, or everything.
    copies: VecDeque<Result<Message, Keys>>,
    deaths: u8,
}

fn apply(keys: &mut Keys, message: Message) {
    match message {
        Message::Store(key) => keys.insert(key),
        Message::Forget(key) => keys.remove(&key),
    };
}

impl World {
    fn new() -> Self {
        Self {
            daemon: Some(0),
            progress: 0,
            used: Keys::new(),
            channel: VecDeque::new(),
            supervisor: Some(Keys::new()),
            looked: Look::No,
            taken: None,
            keeper: Some(Keys::new()),
            giving: None,
            copies: VecDeque::new(),
            deaths: 0,
        }
    }

    /// Every world that can come next.
    fn next(&self, mistake: Mistake) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        all.extend(self.daemon_steps(mistake));
        all.extend(self.supervisor_steps(mistake)?);
        all.extend(self.keeper_steps(mistake));
        all.extend(self.deaths());
        Ok(all)
    }

    fn daemon_steps(&self, mistake: Mistake) -> Option<Self> {
        let mut life = LIFE;
        if mistake == Mistake::UsesFirst {
            life.swap(0, 1);
        }
        let done = self.daemon?;
        let step = *life.get(done)?;
        let mut world = self.clone();
        match step {
            Step::Send(message) => world.channel.push_back(message),
            Step::Use(key) => {
                world.used.insert(key);
            }
            Step::Unuse(key) => {
                world.used.remove(&key);
            }
        }
        world.daemon = Some(done + 1);
        world.progress = done + 1;
        Some(world)
    }

    fn supervisor_steps(&self, mistake: Mistake) -> Result<Vec<Self>, String> {
        let Some(stored) = &self.supervisor else {
            return Ok(self.hand_over(mistake));
        };
        let mut all = Vec::new();
        // Not between looking at a message and taking it off: that is one turn of the supervisor.
        let between = self.looked == Look::Copied && mistake != Mistake::StartsInBetween;
        if self.keeper.is_none() && !between {
            let mut world = self.clone();
            world.keeper = Some(Keys::new());
            world.copies = [Err(stored.clone())].into();
            all.push(world);
        }
        let copy = |world: &mut Self, message| {
            if world.keeper.is_some() {
                world.copies.push_back(Ok(message));
            }
        };
        if mistake == Mistake::TakesFirst {
            let mut world = self.clone();
            if let Some(message) = world.taken.take() {
                copy(&mut world, message);
                all.push(world);
            } else if let Some(message) = world.channel.pop_front() {
                world.taken = Some(message);
                world.supervisor.iter_mut().for_each(|s| apply(s, message));
                all.push(world);
            }
        } else if let Some(&message) = self.channel.front() {
            let mut world = self.clone();
            if self.looked == Look::No {
                world.looked = Look::Copied;
                copy(&mut world, message);
            } else {
                world.looked = Look::No;
                world.channel.pop_front();
                world.supervisor.iter_mut().for_each(|s| apply(s, message));
            }
            all.push(world);
        } else if mistake == Mistake::TakesUnseen && self.looked == Look::No {
            all.push(Self {
                looked: Look::Nothing,
                ..self.clone()
            });
        }
        let drained = self.channel.is_empty() || mistake == Mistake::LeavesLastWords;
        if self.daemon.is_none() && drained {
            if let Some(lost) = self.used.difference(stored).next() {
                return Err(format!("descriptor {lost} is in use and lost: {self:?}"));
            }
            let mut world = self.clone();
            world.daemon = Some(self.progress);
            all.push(world);
        }
        Ok(all)
    }

    /// To a new supervisor, when the keeper knows that the old one is dead and has read it out:
    /// a descriptor at a time, and the word that this was all.
    fn hand_over(&self, mistake: Mistake) -> Vec<Self> {
        let Some(held) = self.keeper.as_ref().filter(|_| self.copies.is_empty()) else {
            return Vec::new();
        };
        let Some(giving) = &self.giving else {
            return vec![Self {
                giving: Some((Keys::new(), held.clone())),
                ..self.clone()
            }];
        };
        let (mut given, mut left) = giving.clone();
        let mut all = Vec::new();
        if left.is_empty() || mistake == Mistake::BeginsEarly {
            all.push(Self {
                giving: None,
                supervisor: Some(given.clone()),
                ..self.clone()
            });
        }
        if let Some(key) = left.pop_first() {
            given.insert(key);
            let mut world = self.clone();
            world.giving = Some((given, left));
            if mistake == Mistake::LetsGo {
                world.keeper.iter_mut().for_each(|held| {
                    held.remove(&key);
                });
            }
            all.push(world);
        }
        all
    }

    fn keeper_steps(&self, mistake: Mistake) -> Vec<Self> {
        let mut all = Vec::new();
        let reads = self.giving.is_none() || mistake == Mistake::ReadsWhileGiving;
        let orphaned = self.supervisor.is_none() && reads;
        if self.keeper.is_none() {
            return all;
        }
        let mut world = self.clone();
        if let Some(copy) = world.copies.pop_front() {
            world.keeper.iter_mut().for_each(|held| match &copy {
                Ok(message) => apply(held, *message),
                Err(everything) => *held = everything.clone(),
            });
            all.push(world);
        }
        let first = mistake == Mistake::ReadsDaemonsFirst;
        if orphaned && (self.copies.is_empty() || first) {
            let mut world = self.clone();
            if let Some(message) = world.channel.pop_front() {
                world
                    .keeper
                    .iter_mut()
                    .for_each(|held| apply(held, message));
                all.push(world);
            }
        }
        all
    }

    fn deaths(&self) -> Vec<Self> {
        let mut all = Vec::new();
        if self.deaths == 4 {
            return all;
        }
        let dying = || Self {
            deaths: self.deaths + 1,
            ..self.clone()
        };
        if self.daemon.is_some() {
            let mut world = dying();
            world.daemon = None;
            all.push(world);
        }
        if self.giving.is_some() {
            let mut world = dying();
            world.giving = None;
            all.push(world);
        }
        if self.supervisor.is_some() && self.keeper.is_some() {
            let mut world = dying();
            world.supervisor = None;
            world.looked = Look::No;
            world.taken = None;
            all.push(world);
            let mut world = dying();
            world.keeper = None;
            world.copies.clear();
            all.push(world);
        }
        all
    }
}

/// Explores everything; how many worlds there are, or what is wrong in one.
fn explore(mistake: Mistake) -> Result<usize, String> {
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        for next in world.next(mistake)? {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn nothing_in_use_is_lost_whoever_dies_when() {
    let worlds = explore(Mistake::None).unwrap();
    assert!(worlds > 1000, "{worlds}");
}

#[test]
fn the_model_finds_mistakes() {
    for mistake in [
        Mistake::TakesFirst,
        Mistake::LeavesLastWords,
        Mistake::ReadsDaemonsFirst,
        Mistake::StartsInBetween,
        Mistake::UsesFirst,
        Mistake::TakesUnseen,
        Mistake::ReadsWhileGiving,
        Mistake::BeginsEarly,
        Mistake::LetsGo,
    ] {
        assert!(explore(mistake).is_err(), "{mistake:?} is not found");
    }
}
