//! The floor: frames that are ready go to the one who wants them, found by a look-up, through as many tasks and channels
//! as the broadcaster has. What it loses with more subscriptions, memory and wakeups take, and no index can give back.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clients::{Journal, SUBSCRIPTIONS};

type Frame = [Bytes; 2];

/// Frames on their way to a client; as many as the bench lets be on their way at all.
pub(crate) struct Floor {
    frames: mpsc::UnboundedSender<(usize, Frame)>,
    tasks: JoinSet<()>,
}

impl Floor {
    /// For the owners 1 to `count`, [`SUBSCRIPTIONS`] of which are a client's.
    pub(crate) fn start(count: usize, journal: &Arc<Journal>) -> Self {
        let mut tasks = JoinSet::new();
        let mut clients = HashMap::new();
        let owners: Vec<usize> = (1..=count).collect();
        for owners in owners.chunks(SUBSCRIPTIONS) {
            let (sender, mut frames) = mpsc::unbounded_channel::<Frame>();
            clients.extend(owners.iter().map(|owner| (*owner, sender.clone())));
            let journal = Arc::clone(journal);
            tasks.spawn(async move {
                while let Some(frame) = frames.recv().await {
                    journal.take(&frame);
                    tokio::task::consume_budget().await;
                }
            });
        }
        let (frames, mut routed) = mpsc::unbounded_channel::<(usize, Frame)>();
        tasks.spawn(async move {
            while let Some((owner, frame)) = routed.recv().await {
                if let Some(client) = clients.get(&owner) {
                    let _its_task_has_ended = client.send(frame);
                }
            }
        });
        Self { frames, tasks }
    }

    /// A frame as the broadcaster makes it of such a change.
    pub(crate) fn write(&self, number: usize, owner: usize) {
        let head = format!(
            r#"{{"type":"transaction","id":"s{owner}","cursor":"0/{number:X}","lsn":"0/{number:X}","xid":{number},"committed_at":"2000-01-01T00:00:00.000000Z","#
        );
        let tail = format!(
            r#""changes":[{{"op":"insert","table":"public.files","key":{{"id":{number}}},"row":{{"id":{number},"owner_id":{owner},"title":"a title of ordinary length","body":"{:080}"}}}}]}}"#,
            0
        );
        let _its_task_has_ended = self.frames.send((owner, [head.into(), tail.into()]));
    }

    /// Until all tasks have ended.
    pub(crate) async fn end(self) {
        drop(self.frames);
        self.tasks.join_all().await;
    }
}
