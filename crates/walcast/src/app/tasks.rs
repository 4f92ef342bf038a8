//! The daemon's tasks: each has a name and one owner, and none may end before it is told to.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

/// A core task ended by itself, or panicked: the daemon must stop, loudly.
#[derive(Debug)]
pub(crate) struct TaskEnded {
    name: &'static str,
    why: String,
}

impl fmt::Display for TaskEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ended: {}", self.name, self.why)
    }
}

/// The running tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<(&'static str, Result<(), String>)>,
    names: Vec<(tokio::task::Id, &'static str)>,
}

impl Tasks {
    /// Starts a task. It ends well only after its cancellation.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let handle = self.set.spawn(async move { (name, task.await) });
        self.names.push((handle.id(), name));
    }

    fn ended(
        &self,
        joined: Result<(&'static str, Result<(), String>), JoinError>,
    ) -> Result<&'static str, TaskEnded> {
        match joined {
            Ok((name, Ok(()))) => Ok(name),
            Ok((name, Err(why))) => Err(TaskEnded { name, why }),
            Err(error) => {
                let found = self.names.iter().find(|(id, _)| *id == error.id());
                Err(TaskEnded { name: found.map_or("unknown", |(_, name)| *name), why: error.to_string() })
            }
        }
    }

    /// Waits until any task ends, which none should. Cancel-safe.
    pub(crate) async fn first_to_end(&mut self) -> TaskEnded {
        match self.set.join_next().await {
            Some(joined) => match self.ended(joined) {
                Ok(name) => TaskEnded { name, why: "nobody told it to".to_owned() },
                Err(ended) => ended,
            },
            None => std::future::pending().await,
        }
    }

    /// Waits for the tasks that were told to end, up to `grace` in all; then ends them and names who was late.
    pub(crate) async fn join(mut self, grace: Duration) {
        let mut running: Vec<_> = self.names.iter().map(|(_, name)| *name).collect();
        let all = async {
            while let Some(joined) = self.set.join_next().await {
                let name = match self.ended(joined) {
                    Ok(name) => name,
                    Err(ended) => {
                        tracing::error!("{ended}");
                        ended.name
                    }
                };
                running.retain(|other| *other != name);
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(late = ?running, "tasks did not end within {grace:?}; ending them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tasks;

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("idle", std::future::pending());
        tasks.spawn("faulty", async { panic!("a bug") });
        let ended = tasks.first_to_end().await.to_string();
        assert!(ended.starts_with("task faulty ended: "), "{ended}");
    }
}
