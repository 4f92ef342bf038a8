//! The subscriptions of one client: each gives a frame in its turn, and only those that have reason to are asked.
//!
//! Whatever a subscription waits for rings its bell, which puts its place on the client's list and wakes the client. So
//! what a change costs does not depend on how many subscriptions its client has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use walcast_protocol::SubscriptionId;

use crate::encode::Frame;
use crate::subscription::Subscription;

/// So many are given back at once.
const FEW: usize = 8;

/// Bits of [`Desk::rung`].
const BITS: usize = u64::BITS as usize;

/// Empty at first.
#[derive(Default)]
pub(crate) struct Subscriptions {
    // Boxed: a list has room for more than there are, and most clients have one.
    places: Vec<Option<Box<Place>>>,
    free: Vec<usize>,
    /// Places of those that may have a frame, in their turn; none is there twice.
    due: VecDeque<usize>,
    desk: Arc<Desk>,
}

struct Place {
    subscription: Subscription,
    waker: Waker,
    is_due: bool,
}

/// Where bells are heard. One line of a cache for one who rings and one who hears: they are on different processors.
#[derive(Default)]
struct Desk {
    /// A bit for each place; where there are more places than bits, some share one, and are asked together.
    rung: AtomicU64,
    client: AtomicWaker,
}

/// A subscription's. One that was there before may ring once more, which does no harm.
struct Bell {
    bit: u64,
    desk: Arc<Desk>,
}

impl Bell {
    fn new(place: usize, desk: &Arc<Desk>) -> Self {
        Self { bit: 1 << (place % BITS), desk: Arc::clone(desk) }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.desk.rung.fetch_or(self.bit, Ordering::AcqRel) & self.bit == 0 {
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
        let waker = Waker::from(Arc::new(Bell::new(index, &self.desk)));
        let place = Some(Box::new(Place { subscription, waker, is_due: false }));
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

    /// Gives all of them back. Where many clients with many subscriptions go at once, `leaving` has turns for a few of them at
    /// a time, and these give back a few and let others have their turn: whoever stays waits for no more than that.
    pub(crate) async fn leave(&mut self, leaving: &Semaphore) {
        (self.free, self.due) = (Vec::new(), VecDeque::new());
        let places = std::mem::take(&mut self.places);
        if places.len() <= FEW {
            return;
        }
        // It is never closed.
        let _turn = leaving.acquire().await;
        let mut places = places.into_iter().peekable();
        while places.peek().is_some() {
            places.by_ref().take(FEW).for_each(drop);
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
        // Before they are asked: what comes from now on rings again.
        let mut rung = self.desk.rung.swap(0, Ordering::AcqRel);
        while rung != 0 {
            let first = rung.trailing_zeros() as usize;
            (first..self.places.len()).step_by(BITS).for_each(|index| self.make_due(index));
            rung &= rung - 1;
        }
    }

    /// The next frame, if one of them has one.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        self.hear_bells();
        while let Some(index) = self.due.pop_front() {
            let Some(Some(place)) = self.places.get_mut(index) else { continue };
            place.is_due = false;
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
    use tokio::sync::Semaphore;
    use walcast_feed::{Barriers, Feed, FeedLimits};
    use walcast_policy::Rights;

    use super::{FEW, Subscriptions};
    use crate::broadcaster::{Broadcaster, Sources};
    use crate::gate::Gate;
    use crate::limits::Limits;
    use crate::subscription::Client;
    use crate::testing::{FakeClients, FakePast, FakeSource, at, request};
    use crate::turns::Applicant;

    /// A client with so many subscriptions, each of which holds the user.
    fn subscriptions(broadcaster: &Broadcaster, user: &Arc<str>, count: usize) -> Subscriptions {
        let rights = Arc::new(Rights::Everything);
        let mut subscriptions = Subscriptions::default();
        for _ in 0..count {
            let client = Client { applicant: Applicant::User(Arc::clone(user)), user: None };
            let request = request(r#""tables":[{"table":"public.a"}]"#).unwrap();
            subscriptions.push(broadcaster.subscribe(request, &rights, &client).unwrap());
        }
        subscriptions
    }

    #[tokio::test]
    async fn who_goes_gives_them_back_few_at_once_and_few_do_at_a_time() {
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
        let [first, second, few]: [Arc<str>; 3] = ["ada".into(), "bob".into(), "eve".into()];
        let left = |user: &Arc<str>| Arc::strong_count(user) - 1;
        let mut one = subscriptions(&broadcaster, &first, 3 * FEW);
        let mut other = subscriptions(&broadcaster, &second, 3 * FEW);
        let mut small = subscriptions(&broadcaster, &few, FEW);
        let turns = Semaphore::new(1);
        {
            let mut leaving = pin!(one.leave(&turns));
            let mut waiting = pin!(other.leave(&turns));
            for remaining in [2 * FEW, FEW, 0] {
                assert!(leaving.as_mut().now_or_never().is_none());
                assert!(waiting.as_mut().now_or_never().is_none());
                assert_eq!((left(&first), left(&second)), (remaining, 3 * FEW));
            }
            // Of a few, nobody would notice.
            small.leave(&turns).now_or_never().unwrap();
            assert_eq!(left(&few), 0);
            leaving.await;
            waiting.await;
        }
        assert_eq!((left(&first), left(&second)), (0, 0));
        assert!(one.is_empty() && other.is_empty() && small.is_empty());
    }
}
