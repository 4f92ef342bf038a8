//! What the source says to channels, on its way from the slot to those who tell it. It is no part of the log: nothing waits
//! for it, and what there is no room for is gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use walcast_model::DatabaseMessage;

/// Messages that wait to be told, in bytes of memory.
pub const MESSAGES_WAITING_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Default)]
struct Waiting {
    // Short synchronous sections.
    queue: Mutex<Queue>,
    come: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<DatabaseMessage>,
    bytes: usize,
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of who reads the slot.
#[derive(Clone, Debug)]
pub struct MessageWriter {
    waiting: Arc<Waiting>,
}

/// The end of who tells them.
#[derive(Debug)]
pub struct MessageReader {
    waiting: Arc<Waiting>,
}

/// A queue of at most [`MESSAGES_WAITING_BYTES_MAX`], more by one message.
#[must_use]
pub fn messages() -> (MessageWriter, MessageReader) {
    let waiting = Arc::new(Waiting::default());
    (MessageWriter { waiting: Arc::clone(&waiting) }, MessageReader { waiting })
}

impl MessageWriter {
    /// Adds one. `false` when there is no room: it is gone. Never waits.
    #[must_use]
    pub fn push(&self, message: DatabaseMessage) -> bool {
        let mut queue = self.waiting.queue();
        if queue.bytes >= MESSAGES_WAITING_BYTES_MAX {
            return false;
        }
        queue.bytes += message.memory_bytes();
        queue.messages.push_back(message);
        drop(queue);
        self.waiting.come.notify_one();
        true
    }
}

impl MessageReader {
    /// Waits for the next; cancel-safe.
    pub async fn next(&mut self) -> DatabaseMessage {
        loop {
            {
                let mut queue = self.waiting.queue();
                if let Some(message) = queue.messages.pop_front() {
                    queue.bytes -= message.memory_bytes();
                    return message;
                }
            }
            self.waiting.come.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::{DatabaseMessage, Lsn};

    use super::{MESSAGES_WAITING_BYTES_MAX, messages};

    #[tokio::test]
    async fn they_come_in_order_and_what_has_no_room_is_gone() {
        let (writer, mut reader) = messages();
        let content = format!(r#"{{"channel":"a","payload":"{}"}}"#, "x".repeat(60_000));
        let message = |lsn| DatabaseMessage::parse(Lsn::new(lsn), content.as_bytes()).unwrap();
        let taken = (0..1000).take_while(|lsn| writer.push(message(*lsn))).count() as u64;
        assert!((taken - 1) * 60_000 < MESSAGES_WAITING_BYTES_MAX as u64 && taken > 60);
        for lsn in 0..taken {
            assert_eq!(reader.next().await.lsn, Lsn::new(lsn));
        }
        assert!(writer.push(message(2000)));
        assert_eq!(reader.next().await.lsn, Lsn::new(2000));
    }
}
