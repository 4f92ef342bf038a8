//! `walcast explain`: why a client is sent something of a table, or is not, and what it may do in a channel. Stage by
//! stage, with the daemon's own policies, filters and facts; it changes nothing.
//!
//! ```text
//!  of the table:   publication ─► policy ─► where ─► columns                  Access
//!  of each change: history ─► policy, where (before, after) ─► sent           Access::delivery
//!  of a channel:   policies ─► join, publish, presence                        channel::explain
//! ```

mod access;
mod channel;
mod claims;
mod past;
mod present;
mod report;
mod request;
mod table;

use tokio_util::sync::CancellationToken;
use walcast_postgres::Session;

use crate::cli::ExplainArgs;
use crate::output::{Failure, Form};
use crate::settings::ServeSettings;
use access::Access;
use report::Printer;
use request::{Question, Request, What};
use table::Table;

const APPLICATION_NAME: &str = "walcast explain";

/// Explains what was asked for.
///
/// # Errors
/// When the arguments do not fit, a database cannot be read, or standard output is gone.
pub(crate) async fn run(
    args: ExplainArgs,
    settings: &ServeSettings,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let form = Form::choose(args.form);
    let (printer, question) = (Printer::new(form), Question::new(args, settings)?);
    let request = match question {
        Question::Channel(request) => {
            let (stages, grant) = channel::explain(&request);
            return Ok(printer.channel(&request, &stages, grant)?);
        }
        Question::Table(request) => request,
    };
    let explained = stop.run_until_cancelled(explain(&request, settings, printer)).await;
    explained.unwrap_or_else(|| Err(Failure::interrupted()))
}

async fn explain(request: &Request, settings: &ServeSettings, printer: Printer) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::because(error);
    let source = Session::connect(&settings.database, APPLICATION_NAME).await;
    let source = source.map_err(|error| Failure::away("the source", &error))?;
    // A table locked by a migration is not worth hanging for.
    source.batch_execute("SET lock_timeout = '5s'").await.map_err(|error| failed(&error))?;
    let table = Table::find(&source, &settings.publication, &request.table).await?;
    let access = Access::new(request, &table);
    let mut stages = table.stages();
    stages.extend(access.stages().iter().cloned());
    printer.table(request, &stages)?;
    match &request.what {
        What::Transaction(wanted) => past::transaction(settings, request, &access, *wanted, &printer).await,
        What::Row(key) => {
            let key = present::row(&source, &table, &access, key, &printer).await?;
            past::newest(settings, request, &access, &key, &printer).await
        }
    }
}
