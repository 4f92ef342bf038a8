//! What was committed, in order, and how far each client has come in it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use walcast_model::{Cursor, Lsn};

use super::taken::Delivered;
pub use super::truth::Entry;
use super::truth::Shape;
use super::verdict::{Violation, ViolationKind};
use super::wal::WalTransaction;

/// The committed sequence as far as the witness has read it; shared by the witness, the clients and the audit.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    grown: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// In commit order.
    entries: Vec<Entry>,
    /// Nothing that was committed before it is missing.
    horizon: Lsn,
    /// The next entry of each account that is open.
    next: Vec<Option<usize>>,
    /// Changes of the entries before it are forgotten.
    kept: usize,
}

/// How far one client has come. Delivered transactions wait in it until the witness has read them too.
#[derive(Debug)]
pub struct Account {
    number: usize,
    shape: Shape,
    next: usize,
    waiting: VecDeque<Item>,
    /// What was settled last, for a report.
    recent: VecDeque<String>,
}

#[derive(Debug)]
enum Item {
    Delivered(Delivered),
    /// Everything before this has to have come; why.
    Passed(Lsn, &'static str),
    /// It begins, or resumes, here.
    Begins(Cursor),
}

impl Account {
    /// A transaction was delivered.
    pub fn delivered(&mut self, delivered: Delivered) {
        self.waiting.push_back(Item::Delivered(delivered));
    }

    /// The client was told that everything before this has come; `why` names the message.
    pub fn passed(&mut self, lsn: Lsn, why: &'static str) {
        self.waiting.push_back(Item::Passed(lsn, why));
    }

    /// The client begins, or resumes, at this cursor.
    pub fn begins(&mut self, cursor: Cursor) {
        self.waiting.push_back(Item::Begins(cursor));
    }

    /// Transactions and cursors that the witness has not come to.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The number of committed transactions that it is past.
    #[must_use]
    pub fn position(&self) -> usize {
        self.next
    }

    fn note(&mut self, text: String) {
        const RECENT: usize = 4;
        self.recent.push_back(text);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self { state: Mutex::default(), grown: watch::Sender::new(()) }
    }
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the account of a client that asks for `tables`.
    pub fn open(&self, tables: &[&str]) -> Account {
        let mut state = self.state();
        let next = state.entries.len();
        state.next.push(Some(next));
        Account {
            number: state.next.len() - 1,
            shape: Shape::new(tables),
            next,
            waiting: VecDeque::new(),
            recent: VecDeque::new(),
        }
    }

    /// Told of every step of the witness.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// Transactions that the witness has read.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether the witness has read nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that was committed before this is here.
    pub fn horizon(&self) -> Lsn {
        self.state().horizon
    }

    /// Where the last transaction ends.
    pub fn end(&self) -> Lsn {
        self.state().entries.last().map_or(Lsn::ZERO, |entry| entry.end)
    }

    pub(crate) fn append(&self, transactions: impl IntoIterator<Item = WalTransaction>, horizon: Lsn) {
        let mut state = self.state();
        for transaction in transactions {
            let last = state.entries.last().map_or(Lsn::ZERO, |entry| entry.end);
            // A slot that was not advanced yet gives them again.
            if transaction.begin >= last && !transaction.changes.is_empty() {
                state.entries.push(Entry::new(transaction));
            }
        }
        state.horizon = state.horizon.max(horizon);
        drop(state);
        self.grown.send_replace(());
    }

    /// Entries from a number on, at most `count`; without their changes.
    pub(crate) fn entries(&self, from: usize, count: usize) -> Vec<Entry> {
        let state = self.state();
        state
            .entries
            .iter()
            .skip(from)
            .take(count)
            .map(|entry| Entry { changes: None, ..entry.clone() })
            .collect()
    }

    /// Compares what waits in an account with what was committed, as far as the witness has read.
    ///
    /// # Errors
    ///
    /// At the first difference, with the shortest window around it.
    pub fn settle(&self, account: &mut Account) -> Result<(), Violation> {
        let mut state = self.state();
        while let Some(item) = account.waiting.front() {
            let step = match item {
                Item::Begins(cursor) => state.find(*cursor),
                Item::Passed(lsn, why) => state.pass(account, *lsn, why)?,
                Item::Delivered(delivered) => state.settle(account, delivered)?,
            };
            let Some(next) = step else { break };
            account.next = next;
            if let Some(Item::Delivered(delivered)) = account.waiting.pop_front() {
                account.note(format!(
                    "{} xid {}: {} changes",
                    delivered.lsn,
                    delivered.xid,
                    delivered.changes.len()
                ));
            }
        }
        state.next[account.number] = Some(account.next);
        state.forget();
        Ok(())
    }

    /// The account is closed: nothing is kept for it.
    pub fn close(&self, account: &Account) {
        let mut state = self.state();
        state.next[account.number] = None;
        state.forget();
    }
}

impl State {
    /// The first entry at or after a cursor, when that is known.
    fn find(&self, cursor: Cursor) -> Option<usize> {
        (self.horizon >= cursor.lsn())
            .then(|| self.entries.partition_point(|entry| entry.begin < cursor.lsn()))
    }

    /// The next entry that concerns the account.
    fn expected(&self, account: &Account) -> Option<usize> {
        let concerns = |entry: &Entry| {
            account.shape.is_everything()
                || entry
                    .changes
                    .as_ref()
                    .is_some_and(|changes| changes.iter().any(|change| account.shape.has(change.table())))
        };
        let rest = self.entries.get(account.next..)?;
        rest.iter().position(concerns).map(|ahead| account.next + ahead)
    }

    fn pass(&self, account: &Account, lsn: Lsn, why: &str) -> Result<Option<usize>, Violation> {
        if self.horizon < lsn {
            return Ok(None);
        }
        match self.expected(account) {
            Some(index) if self.entries[index].begin < lsn => {
                let text = format!("{why} says that everything before {lsn} has come");
                Err(self.violation(ViolationKind::Lost, account, index, &text))
            }
            Some(index) => Ok(Some(index)),
            None => Ok(Some(self.entries.len())),
        }
    }

    fn settle(&mut self, account: &Account, delivered: &Delivered) -> Result<Option<usize>, Violation> {
        let lsn = delivered.lsn;
        let Some(index) = self.expected(account) else {
            if self.horizon > lsn {
                let known = self.entries.binary_search_by_key(&lsn, |entry| entry.begin);
                let (kind, at) =
                    known.map_or_else(|at| (ViolationKind::Wrong, at), |at| (ViolationKind::Repeated, at));
                return Err(self.violation(kind, account, at, &format!("{lsn} was delivered")));
            }
            return Ok(None);
        };
        if self.entries[index].begin < lsn {
            let text = format!("{lsn} (xid {}) was delivered instead", delivered.xid);
            return Err(self.violation(ViolationKind::Lost, account, index, &text));
        }
        if self.entries[index].begin > lsn {
            let known = self.entries.binary_search_by_key(&lsn, |entry| entry.begin).is_ok();
            let kind = if known { ViolationKind::Repeated } else { ViolationKind::Wrong };
            let what = if known { "again" } else { "and was not committed" };
            let first = delivered.changes.first().map(ToString::to_string).unwrap_or_default();
            let text = format!("{lsn} (xid {}) was delivered {what}: {first}", delivered.xid);
            return Err(self.violation(kind, account, index, &text));
        }
        let checked = self.entries[index].check(&account.shape, delivered);
        checked.map_err(|violation| self.violation(violation.kind, account, index, &violation.text))?;
        Ok(Some(index + 1))
    }

    fn violation(&self, kind: ViolationKind, account: &Account, index: usize, what: &str) -> Violation {
        let window = self.entries.iter().enumerate().skip(index.saturating_sub(2)).take(5);
        let committed: Vec<String> = window
            .map(|(at, entry)| format!("{} {at} {}", if at == index { "=>" } else { "  " }, entry.describe()))
            .collect();
        let told: Vec<&str> = account.recent.iter().map(String::as_str).collect();
        Violation::new(
            kind,
            format!(
                "{what}\n  asked for: {}\n  committed, with the next that was expected:\n    {}\n  told before:\n    {}",
                account.shape.name(),
                committed.join("\n    "),
                told.join("\n    ")
            ),
        )
    }

    fn forget(&mut self) {
        let behind = self.next.iter().flatten().min().copied().unwrap_or(self.entries.len());
        for entry in self.entries.iter_mut().take(behind).skip(self.kept) {
            entry.changes = None;
        }
        self.kept = self.kept.max(behind);
    }
}
