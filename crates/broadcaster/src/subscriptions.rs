//! The subscriptions of one client: each gives a frame in its turn, and only those that have reason to are asked.
//!
//! Whatever a subscription waits for rings its bell, which puts its place on the client's list and wakes the client. So
//! what a change costs does not depend on how many subscriptions its client has.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::yield_now;
use walcast_protocol::SubscriptionId;

use crate::encode::Frame;
use crate::subscription::Subscription;

/// Empty at first.
#[derive(Default)]
pub(crate) struct Subscriptions {
    // Boxed: a list has room for more than there are, and most clients have one.
    places: Vec<Option<Box<Place>>>,
    free: Vec<usize>,
    /// Places of those that may have a frame, in their turn; none is there twice.
    due: VecDeque<usize>,
    desk: Arc<Desk>,
    /// Empty; takes turns with the desk's list, so that neither is made anew each time.
    heard: Vec<usize>,
}

struct Place {
    subscription: Subscription,
    bell: Arc<Bell>,
    waker: Waker,
    is_due: bool,
}

/// Where bells are heard.
#[derive(Default)]
struct Desk {
    // Short synchronous sections.
    rung: Mutex<Vec<usize>>,
    client: AtomicWaker,
}

/// A subscription's. One that was there before may ring once more, which does no harm.
struct Bell {
    place: usize,
    has_rung: AtomicBool,
    desk: Arc<Desk>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            self.desk.rung.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
            self.desk.client.wake();
        }
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn has(&self, id: &SubscriptionId) -> bool {
        self.find(id).is_some()
    }

    /// Something may be done to it, so it is asked again.
    pub(crate) fn get_mut(&mut self, id: &SubscriptionId) -> Option<&mut Subscription> {
        let index = self.find(id)?;
        self.make_due(index);
        self.places.get_mut(index)?.as_mut().map(|place| &mut place.subscription)
    }

    fn find(&self, id: &SubscriptionId) -> Option<usize> {
        let is_it =
            |place: &Option<Box<Place>>| place.as_ref().is_some_and(|place| place.subscription.id() == id);
        self.places.iter().position(is_it)
    }

    pub(crate) fn push(&mut self, subscription: Subscription) {
        let index = self.free.pop().unwrap_or(self.places.len());
        let bell =
            Arc::new(Bell { place: index, has_rung: AtomicBool::new(false), desk: Arc::clone(&self.desk) });
        let waker = Waker::from(Arc::clone(&bell));
        let place = Some(Box::new(Place { subscription, bell, waker, is_due: false }));
        match self.places.get_mut(index) {
            Some(free) => *free = place,
            None => self.places.push(place),
        }
        self.make_due(index);
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, id: &SubscriptionId) -> bool {
        let found = self.find(id);
        if let Some(index) = found {
            self.take_out(index);
        }
        found.is_some()
    }

    fn take_out(&mut self, index: usize) {
        if let Some(place) = self.places.get_mut(index).and_then(Option::take) {
            if place.is_due {
                self.due.retain(|due| *due != index);
            }
            self.free.push(index);
        }
    }

    /// Gives all of them back, one by one: where many clients go at once, others have their turn in between.
    pub(crate) async fn leave(&mut self) {
        (self.free, self.due) = (Vec::new(), VecDeque::new());
        for place in std::mem::take(&mut self.places) {
            drop(place);
            yield_now().await;
        }
    }

    /// All of them. Something may be done to them, so each is asked again.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        (0..self.places.len()).for_each(|index| self.make_due(index));
        self.places.iter_mut().flatten().map(|place| &mut place.subscription)
    }

    fn make_due(&mut self, index: usize) {
        if let Some(Some(place)) = self.places.get_mut(index)
            && !std::mem::replace(&mut place.is_due, true)
        {
            self.due.push_back(index);
        }
    }

    fn hear_bells(&mut self) {
        let mut heard = std::mem::take(&mut self.heard);
        {
            let mut rung = self.desk.rung.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut heard, &mut *rung);
        }
        for index in heard.drain(..) {
            self.make_due(index);
        }
        self.heard = heard;
    }

    /// The next frame, if one of them has one.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        self.hear_bells();
        while let Some(index) = self.due.pop_front() {
            let Some(Some(place)) = self.places.get_mut(index) else { continue };
            place.is_due = false;
            // Before it is asked: what comes from now on rings again.
            place.bell.has_rung.store(false, Ordering::Release);
            match place.subscription.poll_next(&mut Context::from_waker(&place.waker)) {
                Poll::Ready(Some(frame)) => {
                    self.make_due(index);
                    return Some(frame);
                }
                Poll::Ready(None) => self.take_out(index),
                Poll::Pending => {}
            }
        }
        None
    }

    /// Whether one of them may have a frame. Wakes when that changes.
    pub(crate) fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.desk.client.register(cx.waker());
        self.hear_bells();
        if self.due.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures_util::FutureExt;
    use walcast_feed::{Barriers, Feed, FeedLimits};
    use walcast_policy::Rights;

    use super::Subscriptions;
    use crate::broadcaster::{Broadcaster, Sources};
    use crate::gate::Gate;
    use crate::limits::Limits;
    use crate::subscription::Client;
    use crate::testing::{FakeClients, FakePast, FakeSource, at, request};
    use crate::turns::Applicant;

    #[tokio::test]
    async fn who_goes_gives_them_back_one_by_one_and_others_have_their_turn_in_between() {
        let sources = Sources {
            feed_id: "f_1".parse().unwrap(),
            lineage: crate::Lineage::default(),
            feed: Feed::new(at(1), FeedLimits { memory_bytes_max: 1 << 20 }).1,
            barriers: Barriers::new().0,
            past: Arc::new(FakePast::default()),
            source: Arc::new(FakeSource::default()),
            clients: Arc::new(FakeClients::default()),
            gate: Gate::closed(),
        };
        let broadcaster = Broadcaster::new(sources, Limits::default());
        let (user, rights): (Arc<str>, _) = ("ada".into(), Arc::new(Rights::Everything));
        let mut subscriptions = Subscriptions::default();
        for _ in 0..3 {
            // Each holds the user.
            let client = Client { applicant: Applicant::User(Arc::clone(&user)), user: None };
            let request = request(r#""tables":[{"table":"public.a"}]"#).unwrap();
            subscriptions.push(broadcaster.subscribe(request, &rights, &client).unwrap());
        }
        assert_eq!(Arc::strong_count(&user), 4);
        {
            let mut leaving = pin!(subscriptions.leave());
            for left in [2, 1, 0] {
                assert!(leaving.as_mut().now_or_never().is_none());
                assert_eq!(Arc::strong_count(&user), 1 + left);
            }
            leaving.await;
        }
        assert!(subscriptions.is_empty());
    }
}
