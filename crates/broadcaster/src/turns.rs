//! Whose initial sync is next: everybody in turn, so that nobody who asks for many keeps others waiting.
//!
//! ```text
//!  ada:   3 2 1 ┐
//!  bob:       1 ├─► ada 1, bob 1, eve 1, ada 2, eve 2, ada 3
//!  eve:     2 1 ┘
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who stands in one line.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Applicant {
    /// A user, however many connections it has.
    User(Arc<str>),
    /// A connection of which nobody knows whose it is.
    Connection(u64),
}

/// The places for initial syncs, and who waits for one. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    /// How many places one applicant may have at a time.
    each_max: usize,
    lines: HashMap<Applicant, Line>,
    /// Who waits and may have another place, by [`Line::rank`]: the first is served next.
    next: BTreeMap<Rank, Applicant>,
    /// Tickets, and turns of lines, that were given out.
    numbers: u64,
}

/// Those who have least come first, and of these whoever was served longest ago, or came first.
type Rank = (usize, u64);

/// Of one applicant: there while it has a place or waits for one.
#[derive(Debug, Default)]
struct Line {
    has: usize,
    /// A later one each time that it is served, and when it begins to wait.
    turn: u64,
    /// By their tickets, which grow.
    waiting: BTreeMap<u64, oneshot::Sender<Place>>,
}

impl Line {
    const fn rank(&self) -> Rank {
        (self.has, self.turn)
    }
}

/// A place in the queue, or in the end for an initial sync. Leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    ticket: Ticket,
    granted: oneshot::Receiver<Place>,
}

/// Names a [`Turn`].
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    turns: Turns,
    of: Applicant,
    number: u64,
}

/// A place for an initial sync; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Turns,
    of: Applicant,
}

impl Turns {
    /// `max` places, of which one applicant has `each_max` at the most.
    pub(crate) fn new(max: usize, each_max: usize) -> Self {
        let queue = Queue {
            free: max.max(1),
            each_max: each_max.max(1),
            lines: HashMap::new(),
            next: BTreeMap::new(),
            numbers: 0,
        };
        Self { queue: Arc::new(Mutex::new(queue)) }
    }

    // Held for a look-up, and for a look at each line to tell a position.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues behind what `of` waits for already.
    pub(crate) fn queue(&self, of: Applicant) -> Turn {
        let (grant, granted) = oneshot::channel();
        let mut queue = self.lock();
        let number = queue.number();
        queue.change(&of, |line| {
            if line.waiting.is_empty() {
                line.turn = number;
            }
            line.waiting.insert(number, grant);
        });
        let unwanted = self.grant(&mut queue);
        drop(queue);
        // Gives them back, which takes the lock.
        drop(unwanted);
        Turn { ticket: Ticket { turns: self.clone(), of, number }, granted }
    }

    /// Gives out what is free. Returns places for which nobody waited any more.
    fn grant(&self, queue: &mut Queue) -> Vec<Place> {
        let mut unwanted = Vec::new();
        while queue.free > 0 {
            let Some(of) = queue.next.values().next().cloned() else { break };
            queue.free -= 1;
            let turn = queue.number();
            let first = queue.change(&of, |line| {
                (line.has, line.turn) = (line.has + 1, turn);
                line.waiting.pop_first()
            });
            let place = Place { turns: self.clone(), of };
            unwanted.extend(match first {
                Some((_, grant)) => grant.send(place).err(),
                None => Some(place),
            });
        }
        unwanted
    }
}

impl Queue {
    /// Later than all before.
    const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Changes a line, and where it stands.
    fn change<T>(&mut self, of: &Applicant, what: impl FnOnce(&mut Line) -> T) -> T {
        let line = self.lines.entry(of.clone()).or_default();
        self.next.remove(&line.rank());
        let answer = what(line);
        if !line.waiting.is_empty() && line.has < self.each_max {
            self.next.insert(line.rank(), of.clone());
        } else if line.waiting.is_empty() && line.has == 0 {
            self.lines.remove(of);
        }
        answer
    }
}

impl Ticket {
    /// How many are served until it is this one's turn, itself included, if nobody else comes and all take equally long;
    /// `None` when it has come.
    pub(crate) fn position(&self) -> Option<usize> {
        let queue = self.turns.lock();
        let own = queue.lines.get(&self.of).filter(|line| line.waiting.contains_key(&self.number))?;
        let before = own.waiting.range(..self.number).count();
        // In the round in which this one is served, those before it are served first, and itself.
        let served = |line: &Line| line.waiting.len().min(before + usize::from(line.rank() <= own.rank()));
        Some(queue.lines.values().map(served).sum())
    }
}

impl Turn {
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// Waits for the place. Cancel-safe.
    pub(crate) async fn come(&mut self) -> Option<Place> {
        // The sender is in the queue until it has sent.
        (&mut self.granted).await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Ticket { turns, of, number } = &self.ticket;
        drop(turns.lock().change(of, |line| line.waiting.remove(number)));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.turns.lock();
        queue.free += 1;
        queue.change(&self.of, |line| line.has -= 1);
        let unwanted = self.turns.grant(&mut queue);
        drop(queue);
        drop(unwanted);
    }
}

#[cfg(test)]
mod tests {
    use super::{Applicant, Turn, Turns};

    fn user(name: &str) -> Applicant {
        Applicant::User(name.into())
    }

    fn positions(turns: &[Turn]) -> Vec<Option<usize>> {
        turns.iter().map(|turn| turn.ticket.position()).collect()
    }

    #[tokio::test]
    async fn everybody_is_served_in_turn_and_knows_when() {
        let turns = Turns::new(1, 1);
        let mut running = turns.queue(user("zoe"));
        let mut place = running.come().await.unwrap();
        let mut queued: Vec<Turn> =
            ["ada", "ada", "ada", "bob", "eve", "eve"].iter().map(|name| turns.queue(user(name))).collect();
        assert_eq!(positions(&queued), [Some(1), Some(4), Some(6), Some(2), Some(3), Some(5)]);
        let mut served = Vec::new();
        while !queued.is_empty() {
            drop(place);
            let at =
                queued.iter().position(|turn| turn.ticket.position().is_none()).expect("somebody is next");
            let mut turn = queued.remove(at);
            place = turn.come().await.unwrap();
            served.push(turn.ticket.number);
        }
        assert_eq!(served, [3, 6, 7, 4, 8, 5]);
    }

    #[tokio::test]
    async fn one_user_cannot_have_all_places_and_whoever_leaves_gives_up_its_own() {
        let turns = Turns::new(4, 2);
        let mut greedy: Vec<Turn> = (0..4).map(|_| turns.queue(user("ada"))).collect();
        assert_eq!(positions(&greedy), [None, None, Some(1), Some(2)]);
        let mut other = turns.queue(Applicant::Connection(1));
        let place = other.come().await.unwrap();
        // Granted and never taken.
        drop(greedy.remove(0));
        assert_eq!(positions(&greedy), [None, None, Some(1)]);
        drop(greedy);
        drop((place, other));
        let queue = turns.lock();
        assert_eq!((queue.free, queue.next.len(), queue.lines.len()), (4, 0, 0));
    }
}
