//! Whose initial sync is next: everybody in turn, so that nobody who asks for many keeps others waiting.
//!
//! ```text
//!  ada:   3 2 1 ┐
//!  bob:       1 ├─► ada 1, bob 1, eve 1, ada 2, eve 2, ada 3
//!  eve:     2 1 ┘
//! ```

use std::collections::{HashMap, VecDeque};
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
    has: HashMap<Applicant, usize>,
    /// In the order in which they are served; one that was served goes to the end.
    lines: VecDeque<Line>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Line {
    of: Applicant,
    waiting: VecDeque<(u64, oneshot::Sender<Place>)>,
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
            has: HashMap::new(),
            lines: VecDeque::new(),
            next_ticket: 0,
        };
        Self { queue: Arc::new(Mutex::new(queue)) }
    }

    // Held for a look through the queue.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues behind what `of` waits for already.
    pub(crate) fn queue(&self, of: Applicant) -> Turn {
        let (grant, granted) = oneshot::channel();
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        match queue.lines.iter_mut().find(|line| line.of == of) {
            Some(line) => line.waiting.push_back((ticket, grant)),
            None => {
                queue.lines.push_back(Line { of: of.clone(), waiting: VecDeque::from([(ticket, grant)]) });
            }
        }
        let unwanted = self.grant(&mut queue);
        drop(queue);
        // Gives them back, which takes the lock.
        drop(unwanted);
        Turn { ticket: Ticket { turns: self.clone(), of, number: ticket }, granted }
    }

    /// Gives out what is free. Returns places for which nobody waited any more.
    fn grant(&self, queue: &mut Queue) -> Vec<Place> {
        let mut unwanted = Vec::new();
        while queue.free > 0 {
            // Those who have nothing yet come first.
            let lines = queue.lines.iter().enumerate().filter(|(_, line)| queue.may_have(&line.of));
            let next = lines.min_by_key(|(index, line)| (queue.has(&line.of), *index));
            let Some((index, _)) = next else { break };
            let Some(mut line) = queue.lines.remove(index) else { break };
            let Some((_, grant)) = line.waiting.pop_front() else { continue };
            let of = line.of.clone();
            if !line.waiting.is_empty() {
                queue.lines.push_back(line);
            }
            queue.free -= 1;
            *queue.has.entry(of.clone()).or_default() += 1;
            unwanted.extend(grant.send(Place { turns: self.clone(), of }).err());
        }
        unwanted
    }
}

impl Queue {
    fn has(&self, of: &Applicant) -> usize {
        self.has.get(of).copied().unwrap_or_default()
    }

    fn may_have(&self, of: &Applicant) -> bool {
        self.has(of) < self.each_max
    }
}

impl Ticket {
    /// How many are served until it is this one's turn, itself included, if nobody else comes and all take equally long;
    /// `None` when it has come.
    pub(crate) fn position(&self) -> Option<usize> {
        let queue = self.turns.lock();
        let own = queue.lines.iter().position(|line| line.of == self.of)?;
        let before = queue.lines.get(own)?.waiting.iter().position(|(number, _)| *number == self.number)?;
        let rank = |index: usize, line: &Line| (queue.has(&line.of), index);
        let own_rank = (queue.has(&self.of), own);
        let others = queue.lines.iter().enumerate().map(|(index, line)| match index {
            _ if index == own => before + 1,
            // In the round in which this one is served, those before it are served first.
            _ if rank(index, line) < own_rank => line.waiting.len().min(before + 1),
            _ => line.waiting.len().min(before),
        });
        Some(others.sum())
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
        let mut queue = turns.lock();
        if let Some(line) = queue.lines.iter_mut().find(|line| line.of == *of) {
            line.waiting.retain(|(waiting, _)| waiting != number);
        }
        queue.lines.retain(|line| !line.waiting.is_empty());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.turns.lock();
        queue.free += 1;
        if let Some(has) = queue.has.get_mut(&self.of) {
            *has -= 1;
            if *has == 0 {
                queue.has.remove(&self.of);
            }
        }
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
        assert_eq!(served, [1, 4, 5, 2, 6, 3]);
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
        assert_eq!((queue.free, queue.has.len(), queue.lines.len()), (4, 0, 0));
    }
}
