//! What only a person can bring: found in one go, so that somebody has to act once.

use walcast_history::FeedRecord;
use walcast_postgres::{Session, quote_identifier};
use walcast_replication::identity::{self, Continuity};
use walcast_replication::publication::{Facts, PublicationSettings};
use walcast_replication::{ReplicationConnection, ReplicationSettings, START_OVER, SystemIdentity};

use super::error::Away;
use super::{APPLICATION_NAME, SetupError, StartOver, Target, standing};
use crate::app::{may_have_hole, origin};
use crate::commands::doctor::{
    Finding, Fix, ServerFacts, Severity, TableAccess, access_findings, login_finding,
};

/// Sessions with history and source, in this order.
///
/// # Errors
/// [`SetupError::Away`]: both are asked, so that what keeps one away does not hide what keeps the other away.
pub(crate) async fn sessions(target: &Target) -> Result<(Session, Session), SetupError> {
    // Boxed: connecting is large, and there are three of them.
    let connect = |config| Box::pin(Session::connect(config, APPLICATION_NAME));
    if target.history == target.source {
        let away = |error| SetupError::Away(Away::Both(error));
        let history = connect(&target.history).await.map_err(away)?;
        return Ok((history, connect(&target.source).await.map_err(away)?));
    }
    match tokio::join!(connect(&target.history), connect(&target.source)) {
        (Ok(history), Ok(source)) => Ok((history, source)),
        (history, source) => {
            Err(SetupError::Away(Away::Each { source: source.err(), history: history.err() }))
        }
    }
}

/// Changes nothing, and says what would keep `walcast setup` from its work, as far as it can be found out without it.
///
/// # Errors
/// What is in the way.
pub(crate) async fn look(target: &Target) -> Result<(), SetupError> {
    let (_, source) = sessions(target).await?;
    let mut missing = Vec::new();
    of_source(&source, target, &mut missing).await?;
    if missing.is_empty() { Ok(()) } else { Err(SetupError::Missing(missing)) }
}

/// Which cluster the source is, asked by a replication connection: the same log-in as the replicator's. `None` when it
/// cannot be had; what lacks is added to `missing`.
///
/// # Errors
/// When the source cannot be asked; while only that is in the way what passes by itself.
pub(super) async fn of_source(
    source: &Session,
    target: &Target,
    missing: &mut Vec<Finding>,
) -> Result<Option<SystemIdentity>, SetupError> {
    let server = ServerFacts::gather(source, &target.slot.name).await?;
    let errors = server.findings().into_iter().filter(|finding| finding.severity == Severity::Error);
    // Room for a slot or a sender may come while one waits, and a standby is told in other words.
    let (lasting, passing): (Vec<_>, Vec<_>) =
        errors.partition(|finding| matches!(finding.check, "version" | "wal_level"));
    missing.extend(lasting);
    let settings = ReplicationSettings::default();
    let connecting = Box::pin(ReplicationConnection::connect(&target.source, APPLICATION_NAME, &settings));
    let identity = match connecting.await {
        Ok(mut connection) => Some(connection.identify_system().await?),
        // An SQL session was had with the same password, so it is the role's attribute or pg_hba.conf; a sender may
        // be missing because of what is missing already.
        Err(error) if matches!(error.sqlstate(), Some("42501" | "28000")) || !missing.is_empty() => {
            let lacks_attribute = !Facts::read(source).await?.role.replication;
            missing.push(login_finding(&error.into(), &target.source, server.platform, lacks_attribute));
            None
        }
        Err(error) => return Err(error.into()),
    };
    if !missing.is_empty() {
        missing.extend(passing.into_iter().filter(|finding| finding.check != "primary"));
    }
    Ok(identity)
}

/// The tables that are to be published and that the role cannot read: their changes come, an initial sync is not to be
/// had.
///
/// # Errors
/// When the source cannot be asked.
pub(super) async fn of_tables(
    source: &Session,
    publication: &PublicationSettings,
) -> Result<Vec<Finding>, SetupError> {
    let facts = Facts::read(source).await?;
    let access = match TableAccess::gather(source, &facts, publication).await {
        Ok(access) => access,
        Err(walcast_snapshot::Error::Source(error)) => return Err(error.into()),
        Err(error) => {
            let fix = "alter the publications, or choose others with --publication";
            return Ok(vec![Finding::error("publication", error.to_string(), fix)]);
        }
    };
    let mut findings = access_findings(&access, &facts.role.name);
    findings.retain(|found| found.severity != Severity::Ok);
    Ok(findings)
}

/// What is missing in the feed for good, which would be found next: as far as `start_over` has it said and not mended.
///
/// # Errors
/// When the source cannot be asked.
pub(super) async fn of_feed(
    feed: &FeedRecord,
    target: &Target,
    start_over: StartOver<'_>,
) -> Result<Option<Finding>, SetupError> {
    let Some(hole) = feed.hole_with(&target.publication.names()) else { return Ok(None) };
    let is_there = match start_over {
        StartOver::Never => may_have_hole(feed, &standing(target).await?),
        // Whether a server that was started again has it too is found by reading the slot.
        StartOver::Unread => {
            let judged = identity::judge(&origin(feed), &standing(target).await?, feed.position);
            matches!(judged, Ok(Continuity::Unbroken))
        }
        StartOver::Always | StartOver::OnHole(_) => false,
    };
    Ok(is_there.then(|| Finding::error("feed_hole", hole.to_string(), START_OVER)))
}

/// That the role may not make the schema, which `statement` does.
pub(super) fn schema(database: &str, role: &str, statement: String) -> Finding {
    let role = quote_identifier(role);
    let message = format!(
        "in database {database}: role {role} may not create or alter schema walcast, for the history"
    );
    Finding::error("history_schema", message, Fix::sql(statement))
}
