//! A client in this process, without a socket: what the benches of the routing index drive. It has the same
//! subscriptions as a connection, and is no part of the public interface.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use walcast_policy::Rights;
use walcast_protocol::{Subscribe, SubscriptionId};

use crate::broadcaster::Broadcaster;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::subscription;
use crate::subscriptions::Subscriptions;
use crate::turns::Applicant;

/// May have everything.
pub struct Client {
    broadcaster: Broadcaster,
    subscriptions: Subscriptions,
    number: u64,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Client {
    /// Without subscriptions yet.
    #[must_use]
    pub fn new(broadcaster: &Broadcaster, number: u64) -> Self {
        Self { broadcaster: broadcaster.clone(), subscriptions: Subscriptions::default(), number }
    }

    /// Subscribes.
    ///
    /// # Errors
    /// When it is refused at once.
    pub fn subscribe(&mut self, message: Subscribe) -> Result<(), Refusal> {
        let (request, rights) = (Request::try_from(message)?, Arc::new(Rights::Everything));
        let client = subscription::Client { applicant: Applicant::Connection(self.number), user: Some("") };
        self.subscriptions.push(self.broadcaster.subscribe(request, &rights, &client)?);
        Ok(())
    }

    /// Whether it was there.
    pub fn unsubscribe(&mut self, id: &SubscriptionId) -> bool {
        self.subscriptions.remove(id)
    }

    /// Goes, as a connection does that ends.
    pub async fn leave(mut self) {
        self.subscriptions.leave(self.broadcaster.leaving()).await;
    }

    /// The next message, in two pieces. Cancel-safe.
    pub async fn next(&mut self) -> [Bytes; 2] {
        loop {
            if let Some(frame) = self.subscriptions.next() {
                return [frame.head, frame.tail];
            }
            poll_fn(|cx| self.subscriptions.poll_ready(cx)).await;
        }
    }
}
