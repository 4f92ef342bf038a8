//! What the others said, on its way to one client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::metrics as names;

/// Room for so many letters is kept for those that come next.
const LETTERS_FEW: usize = 16;

/// What channels have for one connection, in their order. Bounded: when a message comes and there are `bytes_max` already,
/// it is dropped, and so is everything that follows until the client has taken what there was. Then it is told what it
/// missed: of messages their number, of presence who is there now.
#[derive(Debug)]
pub(crate) struct Mailbox {
    // Short synchronous sections.
    queue: Mutex<Queue>,
    client: AtomicWaker,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    letters: VecDeque<(Arc<str>, Bytes)>,
    bytes: usize,
    missed: BTreeMap<Arc<str>, Missed>,
}

#[derive(Debug, Default)]
struct Missed {
    messages: u64,
    presence: bool,
}

/// The next for the client.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Mail {
    /// This.
    Frame(Bytes),
    /// So many messages of a channel were dropped.
    Dropped(Arc<str>, u64),
    /// It was not told who came to these channels and went.
    Unaware(Vec<Arc<str>>),
}

impl Mailbox {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), client: AtomicWaker::new(), bytes_max })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there for it is more than it may be.
    fn post(&self, channel: &Arc<str>, frame: &Bytes, miss: impl FnOnce(&mut Missed)) {
        let mut queue = self.queue();
        let was_empty = queue.is_empty();
        if queue.missed.is_empty() && queue.bytes < self.bytes_max {
            queue.bytes += frame.len();
            queue.letters.push_back((Arc::clone(channel), frame.clone()));
        } else {
            miss(queue.missed.entry(Arc::clone(channel)).or_default());
        }
        drop(queue);
        if was_empty {
            self.client.wake();
        }
    }

    /// A message of a channel, or one more that the client misses.
    pub(super) fn post_message(&self, channel: &Arc<str>, frame: &Bytes) {
        self.post(channel, frame, |missed| {
            missed.messages += 1;
            metrics::counter!(names::CHANNEL_MESSAGES_DROPPED).increment(1);
        });
    }

    /// Who is there, or that the client does not know.
    pub(super) fn post_presence(&self, channel: &Arc<str>, frame: &Bytes) {
        self.post(channel, frame, |missed| missed.presence = true);
    }

    /// The next, in order.
    pub(crate) fn take(&self) -> Option<Mail> {
        let mut queue = self.queue();
        if let Some((_, frame)) = queue.letters.pop_front() {
            queue.bytes -= frame.len();
            if queue.letters.is_empty() && queue.letters.capacity() > LETTERS_FEW {
                queue.letters = VecDeque::new();
            }
            return Some(Mail::Frame(frame));
        }
        // What is missed was said after it.
        let counted = queue.missed.iter_mut().find(|(_, missed)| missed.messages > 0);
        if let Some((channel, missed)) = counted {
            return Some(Mail::Dropped(Arc::clone(channel), std::mem::take(&mut missed.messages)));
        }
        // All at once: there is room again from here on.
        let missed = std::mem::take(&mut queue.missed);
        let unaware: Vec<Arc<str>> =
            missed.into_iter().filter(|(_, missed)| missed.presence).map(|(channel, _)| channel).collect();
        (!unaware.is_empty()).then_some(Mail::Unaware(unaware))
    }

    /// Nothing of a channel is for the client any more.
    pub(super) fn forget(&self, channel: &str) {
        let mut queue = self.queue();
        queue.letters.retain(|(of, _)| **of != *channel);
        queue.bytes = queue.letters.iter().map(|(_, frame)| frame.len()).sum();
        queue.missed.remove(channel);
    }

    /// Whether there is something. Wakes when there is.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        self.client.register(cx.waker());
        if self.queue().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.queue().bytes
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.missed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{Mail, Mailbox};

    #[test]
    fn who_does_not_take_what_there_is_misses_the_rest_and_is_told_after_it() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let frame = Bytes::from_static(b"0123456789");
        let mailbox = Mailbox::new(25);
        for _ in 0..5 {
            mailbox.post_message(&a, &frame);
        }
        mailbox.post_presence(&a, &frame);
        mailbox.post_presence(&b, &frame);
        assert_eq!(mailbox.bytes(), 30, "one is more than the limit");
        for _ in 0..3 {
            assert_eq!(mailbox.take(), Some(Mail::Frame(frame.clone())));
            // Not before it was told: it would not know where the gap is.
            mailbox.post_message(&b, &frame);
        }
        assert_eq!(mailbox.take(), Some(Mail::Dropped(Arc::clone(&a), 2)));
        mailbox.post_message(&b, &frame);
        assert_eq!(mailbox.take(), Some(Mail::Dropped(Arc::clone(&b), 4)));
        assert_eq!(mailbox.take(), Some(Mail::Unaware(vec![Arc::clone(&a), Arc::clone(&b)])));
        assert_eq!(mailbox.take(), None);
        mailbox.post_message(&a, &frame);
        mailbox.post_message(&b, &frame);
        mailbox.forget("a");
        assert_eq!((mailbox.bytes(), mailbox.take(), mailbox.take()), (10, Some(Mail::Frame(frame)), None));
    }
}
