//! Changes of history.

use tokio::sync::OnceCell;
use walcast_history::{FeedRecord, PageLimits, Reader};
use walcast_model::{Change, Cursor, Lsn, Part, RelationDigest, RelationName, Seq};
use walcast_postgres::{Pool, Session};

use super::APPLICATION_NAME;
use super::access::Access;
use super::present::Key;
use super::report::{Delivery, Printer, Stage};
use super::request::{Request, Transaction};
use crate::output::{Failure, count};
use crate::settings::ServeSettings;

/// How long it may take to find the newest change of a row in history.
const SEARCH_MAX: &str = "30s";

struct History {
    session: Session,
    reader: Reader,
    feed: FeedRecord,
    /// From where on every change of the table can be judged; asked for once.
    judged_from: OnceCell<Cursor>,
}

impl History {
    async fn open(settings: &ServeSettings) -> Result<Self, Failure> {
        let session = Session::connect(&settings.history, APPLICATION_NAME).await;
        let session = session.map_err(|error| Failure::away("the history", &error))?;
        let slot = &settings.slot.name;
        let feed = FeedRecord::load(&session, slot).await.map_err(|error| Failure::history(&error))?;
        let feed = feed.ok_or_else(|| {
            Failure::new(format!("history has no feed of slot {slot}"))
                .hint(Some("start walcast serve, or name the slot with --slot".into()))
        })?;
        let pool = Pool::new(settings.history.clone(), APPLICATION_NAME, 1);
        let reader = Reader::new(pool, feed.id.clone());
        Ok(Self { session, reader, feed, judged_from: OnceCell::new() })
    }

    /// That a change is there, for how long, and from where on a client can have it.
    fn stage(&self) -> Stage {
        let FeedRecord { oldest, position, .. } = self.feed;
        let message = format!("history has it; it reaches from {oldest} to {position}");
        Stage::keeps("history", message)
    }

    /// What becomes of a subscription that comes to a change that it cannot judge.
    async fn unfit(&self, access: &Access, table: &RelationName, at: Cursor) -> Result<Stage, Failure> {
        let find = async || {
            let definitions = self.reader.definitions().await?;
            let unfit = definitions.iter().filter(|one| one.name() == table && !access.fits(one));
            let unfit: Vec<RelationDigest> = unfit.map(|relation| relation.digest()).collect();
            let found = self.reader.first_without(&unfit, at, self.feed.position).await?;
            Ok(found.cursor())
        };
        let from = self.judged_from.get_or_try_init(find).await.map_err(|error| Failure::history(&error))?;
        let message = format!(
            "{table} had another definition then, which the rules do not fit: a subscription that comes to it ends with \
             cursor_too_old; it can be served from {from} on"
        );
        Ok(Stage::drops("history", message)
            .hint("an initial sync has the rows as they are now: cursor 0/0, or walcast tail --from start"))
    }
}

/// Explains the changes of one transaction to the table.
///
/// # Errors
/// When history cannot be read.
pub(super) async fn transaction(
    settings: &ServeSettings,
    request: &Request,
    access: &Access,
    wanted: Transaction,
    printer: &Printer,
) -> Result<(), Failure> {
    let history = History::open(settings).await?;
    let FeedRecord { oldest, position, .. } = history.feed;
    let from = wanted.from;
    let nothing = |stage: Stage| {
        let what = format!("the transaction at {}", from.lsn());
        let lsn = Some(from.to_string());
        let delivery =
            Delivery { of: "change", lsn, what, stages: vec![stage], delivered: false, sent: None };
        printer.delivery(&delivery)
    };
    if from < oldest {
        let message = format!(
            "history begins at {oldest}, after {from}: a client whose cursor is there gets cursor_too_old"
        );
        return Ok(nothing(
            Stage::drops("history", message).hint("an initial sync has the rows that are there now"),
        )?);
    }
    if from >= position {
        let message = format!("history reaches up to {position}, and {from} is not before that");
        return Ok(nothing(
            Stage::drops("history", message).hint("walcast status says how far the feed has come"),
        )?);
    }
    let after = Cursor::new(Lsn::new(from.lsn().get().saturating_add(1)), Seq::FIRST);
    let (mut next, mut changes, mut explained) = (from, 0_usize, 0_usize);
    let end = after.min(position);
    while next < end {
        let page = history.reader.read_kept(next, end, PageLimits::default()).await;
        let page = page.map_err(|error| Failure::history(&error))?;
        for (part, change, seq) in page.parts.iter().flat_map(located) {
            if wanted.only_one && seq != from.seq() {
                continue;
            }
            changes += 1;
            if *change.relation.name() == request.table {
                explained += 1;
                printer.delivery(&of_change(&history, access, part, change, seq).await?)?;
            }
        }
        next = page.next;
    }
    if explained > 0 {
        return Ok(());
    }
    if changes > 0 {
        let changes = count(changes as u64, "change");
        let message = format!("history has {changes} of it, and none of {}", request.table);
        return Ok(nothing(Stage::drops("history", message).hint(format!(
            "walcast replay --from {} --limit 1 shows them",
            Cursor::new(from.lsn(), Seq::FIRST)
        )))?);
    }
    let limits = PageLimits { changes_max: 1, ..PageLimits::default() };
    let page = history.reader.read_kept(from, position, limits).await;
    let page = page.map_err(|error| Failure::history(&error))?;
    let next = page.parts.first().map(|part| part.transaction().start.lsn());
    let hint = next.map_or_else(
        || "--lsn is the lsn of a transaction message, not its cursor".to_owned(),
        |next| {
            format!(
                "the next transaction is at {next}; --lsn is the lsn of a transaction message, not its cursor"
            )
        },
    );
    Ok(nothing(Stage::drops("history", "no change of the feed is there").hint(hint))?)
}

/// Explains the newest change of a row.
///
/// # Errors
/// When history cannot be read.
pub(super) async fn newest(
    settings: &ServeSettings,
    request: &Request,
    access: &Access,
    key: &Key,
    printer: &Printer,
) -> Result<(), Failure> {
    let history = History::open(settings).await?;
    let text = String::from_utf8_lossy(&key.0).into_owned();
    let nothing = |stage: Stage| {
        let what = format!("the newest change of {text}");
        printer.delivery(&Delivery {
            of: "change",
            lsn: None,
            what,
            stages: vec![stage],
            delivered: false,
            sent: None,
        })
    };
    let failed = |error: tokio_postgres::Error| Failure::because(&walcast_postgres::Error::from(error));
    let limit = format!("SET statement_timeout = '{SEARCH_MAX}'");
    history.session.batch_execute(&limit).await.map_err(failed)?;
    // An update that changed the key has the old one in `key`; the new one stands in the row, as written by walcast.
    let sql = "SELECT lsn::text, seq FROM walcast.change_history
        WHERE schema_name = $1 AND table_name = $2
          AND (op = 'truncate' OR key = $3 OR (op = 'update' AND NOT EXISTS (
               SELECT FROM unnest($4::text[]) field WHERE strpos(left(\"row\", -1) || ',', field) = 0)))
        ORDER BY lsn DESC, seq DESC LIMIT 1";
    let table = &request.table;
    let found = history.session.query_opt(sql, &[&table.schema, &table.table, &text, &key.fields()]).await;
    let found = match found {
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::QUERY_CANCELED) => {
            let message = format!("the newest change was not found within {SEARCH_MAX}");
            let hint = "name its transaction with --lsn";
            return Ok(nothing(Stage::notes("history", message).hint(hint))?);
        }
        found => found.map_err(failed)?,
    };
    let Some(row) = found else {
        let message = format!("history has no change of it; it begins at {}", history.feed.oldest);
        return Ok(nothing(Stage::drops("history", message).hint("only an initial sync has the row"))?);
    };
    let lsn: Lsn = row.get::<_, &str>(0).parse().map_err(|error| Failure::because(&error))?;
    let at = Cursor::new(lsn, Seq::new(row.get(1)));
    let limits = PageLimits { changes_max: 1, ..PageLimits::default() };
    let page = history.reader.read_kept(at, Cursor::new(lsn, at.seq().plus(1)), limits).await;
    let page = page.map_err(|error| Failure::history(&error))?;
    for (part, change, seq) in page.parts.iter().flat_map(located).take(1) {
        printer.delivery(&of_change(&history, access, part, change, seq).await?)?;
    }
    Ok(())
}

fn located(part: &Part) -> impl Iterator<Item = (&Part, &Change, Seq)> {
    let first = part.first();
    part.changes().iter().enumerate().map(move |(index, change)| (part, change, first.plus(index)))
}

async fn of_change(
    history: &History,
    access: &Access,
    part: &Part,
    change: &Change,
    seq: Seq,
) -> Result<Delivery, Failure> {
    let transaction = part.transaction();
    // Always with its seq, so that it names the one change when it is given to --lsn.
    let at = format!("{}:{}", transaction.start.lsn(), seq.get());
    let key = part.key(change).map(|key| format!(" of {}", String::from_utf8_lossy(key))).unwrap_or_default();
    let what = format!("the {}{key} at {at}, committed {}", change.op.as_str(), transaction.committed_at);
    let fate = access.of_change(part, change);
    let mut stages = vec![history.stage()];
    stages.extend(fate.stages);
    if fate.is_unfit {
        let cursor = Cursor::new(transaction.start.lsn(), seq);
        stages.push(history.unfit(access, change.relation.name(), cursor).await?);
    }
    let delivered = fate.sent.is_some();
    Ok(Delivery { of: "change", lsn: Some(at), what, stages, delivered, sent: fate.sent })
}
