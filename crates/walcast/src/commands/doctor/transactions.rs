//! Transactions that have been open for long: a slot cannot be created while they are, and keeps WAL for them.

use walcast_postgres::quote_literal;
use walcast_replication::slot::Blocker;

use super::finding::Finding;
use super::fix::Fix;

/// Age from which on an open transaction is pointed out, in seconds.
const NOTABLE_S: i64 = 60;

/// What they mean, given whether the slot exists already. `open`: the oldest ones, in any database of the cluster.
pub(crate) fn findings(open: &[Blocker], has_slot: bool) -> Vec<Finding> {
    let seconds = |blocker: &Blocker| match blocker {
        Blocker::Session { seconds, .. } | Blocker::Prepared { seconds, .. } => *seconds,
    };
    let old = open.iter().filter(|blocker| seconds(blocker) >= NOTABLE_S);
    let finding = |blocker: &Blocker| {
        let message = format!("a transaction has been open for long: {blocker}");
        if has_slot {
            return Finding::warning(
                "open_transactions",
                format!("{message}; WAL since then is kept"),
                fix(blocker),
            );
        }
        let message = format!("{message}; the slot cannot be created before it ends");
        Finding::error("open_transactions", message, fix(blocker))
    };
    let mut findings: Vec<Finding> = old.map(finding).collect();
    if findings.is_empty() {
        findings.push(Finding::ok("open_transactions", "no transaction has been open for long"));
    }
    findings
}

/// What ends one.
fn fix(blocker: &Blocker) -> Fix {
    match blocker {
        Blocker::Session { pid, .. } => Fix::from("end the transaction, or its session:")
            .then(Fix::sql(format!("SELECT pg_terminate_backend({pid});"))),
        Blocker::Prepared { gid, database, .. } => {
            let gid = quote_literal(gid);
            // No statement to copy: which one it is, only those know whose transaction it is.
            Fix::from(format!(
                "end it in database {database}, as those say who prepared it: COMMIT PREPARED {gid}; or ROLLBACK PREPARED {gid};"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use walcast_replication::slot::Blocker;

    use super::findings;
    use crate::commands::doctor::finding::Severity;

    fn severities(seconds: i64, has_slot: bool) -> Vec<Severity> {
        let prepared = Blocker::Prepared { gid: "it's".into(), database: "shop".into(), seconds };
        findings(&[prepared], has_slot).iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn an_old_transaction_stops_a_slot_that_is_not_there_yet() {
        assert_eq!(severities(90, false), [Severity::Error]);
        assert_eq!(severities(90, true), [Severity::Warning]);
        assert_eq!(severities(1, false), [Severity::Ok]);
    }
}
