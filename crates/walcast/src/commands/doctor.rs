//! `walcast doctor`: looks at everything that the feed stands on, and names for each fault the one statement or action
//! that mends it.
//!
//! Facts are gathered first and judged by functions without I/O. Whatever cannot be asked is a finding itself: the
//! doctor looks at the rest all the same, and changes nothing anywhere.

mod finding;
mod fix;
mod history;
mod offered;
mod platform;
mod policies;
mod present;
mod server;
mod slot;
mod tables;
#[cfg(test)]
mod tests;
mod transactions;
mod wal;
mod walsender;

use walcast_postgres::Session;
use walcast_replication::publication::Facts;
use walcast_replication::slot::blockers;

pub(crate) use finding::{Finding, Severity};
pub(crate) use fix::{Fix, Step};
pub(crate) use platform::Platform;
pub(crate) use policies::policies_findings;
pub(crate) use present::show;
pub(crate) use server::ServerFacts;
pub(crate) use slot::Slot;
pub(crate) use tables::{TableAccess, access_findings, named};
pub(crate) use wal::{WalCost, span};
pub(crate) use walsender::login_finding;

use super::setup::Target;
use crate::settings::{Mistake, Mistakes};

use history::HistoryFacts;
use slot::StoredFeed;
use walsender::WalsenderFacts;

/// Looks at everything once; the findings in the order in which one would mend them. `wal_budget`: the setting, in bytes.
pub(crate) async fn examine(target: &Target, wal_budget: Option<u64>) -> Vec<Finding> {
    // Boxed: connecting is large. At once, so that two that do not answer are waited for once.
    let (history, source) = tokio::join!(
        Box::pin(history::examine(target)),
        Box::pin(Session::connect(&target.source, "walcast doctor"))
    );
    let mut findings = match source {
        Ok(session) => {
            let connected = format!("connected to {} as {:?}", target.source, target.source.user());
            let mut findings = vec![Finding::ok("connection", connected)];
            examine_source(target, wal_budget, &session, &history, &mut findings).await;
            findings
        }
        Err(error) => {
            let away = connection_finding("connection", &error);
            [Some(away), history.hole_finding(None)].into_iter().flatten().collect()
        }
    };
    let is_away =
        findings.iter().any(|found| found.check == "connection" && found.severity == Severity::Error);
    findings.extend(history.findings(is_away));
    findings
}

/// What keeps `walcast serve` from starting with these settings, each with where it was set.
pub(crate) fn settings_findings(refused: &Mistakes) -> Vec<Finding> {
    const CORRECT: &str =
        "correct the setting: with it walcast serve does not start, nor setup, status and teardown";
    let fix = |mistake: &Mistake| match mistake.fix {
        Some(fix) => format!("{fix}: until then walcast serve does not start"),
        None => CORRECT.to_owned(),
    };
    refused.0.iter().map(|mistake| Finding::error("settings", mistake.problem(), fix(mistake))).collect()
}

fn connection_finding(check: &'static str, error: &walcast_postgres::Error) -> Finding {
    Finding::error(
        check,
        error.to_string(),
        error.hint().unwrap_or_else(|| "mend what the message says, then try again".to_owned()),
    )
}

/// A question that the server did not answer, as a finding.
fn unanswered(check: &'static str, error: &impl ToString) -> Finding {
    Finding::error(
        check,
        format!("cannot be examined: {}", error.to_string()),
        "see the message, then try again",
    )
}

async fn examine_source(
    target: &Target,
    wal_budget: Option<u64>,
    session: &Session,
    history: &HistoryFacts,
    findings: &mut Vec<Finding>,
) {
    // The doctor waits for nobody: a table locked by a migration is not worth hanging for.
    if let Err(error) = session.batch_execute("SET lock_timeout = '5s'; SET statement_timeout = '30s'").await
    {
        findings.push(unanswered("connection", &error));
    }
    let platform = match ServerFacts::gather(session, &target.slot.name).await {
        Ok(facts) => {
            findings.extend(facts.findings());
            facts.platform
        }
        Err(error) => {
            findings.push(unanswered("server", &error));
            Platform::OwnServer
        }
    };
    let walsender = WalsenderFacts::gather(&target.source).await;
    let facts = Facts::read(session).await;
    match &walsender {
        Ok(facts) => {
            findings.extend(facts.findings());
            findings.extend(facts.standing.as_ref().and_then(|found| history.source_finding(found)));
        }
        Err(error) => {
            let lacks_attribute = facts.as_ref().is_ok_and(|facts| !facts.role.replication);
            findings.push(login_finding(error, &target.source, platform, lacks_attribute));
        }
    }
    match &facts {
        Ok(facts) => {
            findings.extend(tables::publication_findings(
                facts,
                &target.publication,
                matches!(history.feed(), StoredFeed::To(_)),
            ));
            findings.extend(offered::findings(session, facts, &target.publication).await);
            match TableAccess::gather(session, facts, &target.publication).await {
                Ok(access) => findings.extend(access_findings(&access, &facts.role.name)),
                Err(error) => findings.push(unanswered("select_privilege", &error)),
            }
        }
        Err(error) => findings.push(unanswered("publication", error)),
    }
    let mut has_slot = false;
    match Slot::gather(session, &target.slot.name).await {
        Ok(slot) => {
            has_slot = slot.facts.is_some();
            // Asked again, after the slot: a walcast that runs stores what it acknowledges before it does, so a position
            // that was read before the slot would look as if somebody else had moved the slot.
            findings.extend(slot.findings(history.feed_now(target).await));
            match WalCost::measure(session, &slot, wal_budget).await {
                Ok(cost) => findings.extend(cost.map(|cost| cost.finding())),
                Err(error) => findings.push(unanswered("wal_budget", &error)),
            }
        }
        Err(error) => findings.push(unanswered("slot", &error)),
    }
    let standing = walsender.as_ref().ok().and_then(|facts| facts.standing.as_ref());
    findings.extend(history.hole_finding(standing));
    match blockers(session).await {
        Ok(open) => findings.extend(transactions::findings(&open, has_slot)),
        Err(error) => findings.push(unanswered("open_transactions", &error)),
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}
