//! One subscription by itself.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll, Waker};

use crate::encode::Frame;
use crate::subscription::Subscription;

/// What a subscription has now.
pub(super) enum Output {
    /// Write this.
    Frame(Frame),
    /// Nothing; [`Lone::ready`] says when to ask again.
    Nothing,
    /// It is over.
    Over,
}

/// The only subscription of a request.
pub(super) struct Lone {
    subscription: Subscription,
    /// What it gave while it was waited for.
    given: Option<Option<Frame>>,
}

impl From<Subscription> for Lone {
    fn from(subscription: Subscription) -> Self {
        Self { subscription, given: None }
    }
}

impl Lone {
    /// The next frame, if there is one.
    pub(super) fn next(&mut self) -> Output {
        let given = match self.given.take() {
            Some(given) => Poll::Ready(given),
            // Whoever waits asks again, to be woken.
            None => self.subscription.poll_next(&mut Context::from_waker(Waker::noop())),
        };
        match given {
            Poll::Ready(Some(frame)) => Output::Frame(frame),
            Poll::Ready(None) => Output::Over,
            Poll::Pending => Output::Nothing,
        }
    }

    /// Waits until [`Lone::next`] has something. Cancel-safe: what came is kept.
    pub(super) async fn ready(&mut self) {
        poll_fn(|cx| {
            if self.given.is_none() {
                match self.subscription.poll_next(cx) {
                    Poll::Ready(given) => self.given = Some(given),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Deref for Lone {
    type Target = Subscription;

    fn deref(&self) -> &Subscription {
        &self.subscription
    }
}

impl DerefMut for Lone {
    fn deref_mut(&mut self) -> &mut Subscription {
        &mut self.subscription
    }
}
