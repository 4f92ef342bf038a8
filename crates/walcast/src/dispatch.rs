//! From what was asked to what is done.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use walcast_history::FeedRecord;

use crate::app::{self, PolicyFile};
use crate::cli::{
    Cli, Command, DoctorArgs, ExplainArgs, ReplayArgs, ServeArgs, SetupArgs, StatusArgs, TeardownArgs,
};
use crate::commands::doctor::{self, Severity};
use crate::commands::setup::{self, Loss, Note, SetupError, StartOver, Target};
use crate::commands::status::Status;
use crate::commands::teardown::Belongings;
use crate::commands::{completions, explain, replay, tail};
use crate::demo::{self, DemoArgs, DemoDaemon};
use crate::output::{
    BOLD, CYAN, DIM, Failure, Form, GREEN, RED, UNHEALTHY, WIDTH, json_line, tell, wrap, wrap_message,
    wrap_statement,
};
use crate::settings::flags::SettingsFlags;
use crate::settings::{Examined, ServeSettings, Sources};
use crate::telemetry;

/// Columns before the message of a note.
const MESSAGE: usize = 13;

/// Runs the command to its end; says on standard error what went wrong.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let Err(failure) = command(cli.command) else { return ExitCode::SUCCESS };
    if !failure.message.is_empty() {
        tell(RED, &failure.message);
    }
    ExitCode::from(failure.code)
}

fn command(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => in_runtime(|stop| demo(args, stop)),
        Command::Setup(args) => setup(args),
        Command::Teardown(args) => teardown(args),
        Command::Serve(args) => serve(args),
        Command::Tail(args) => {
            let sources = Sources::of_process(BTreeMap::new(), None);
            let log =
                ServeSettings::load_log(&sources).map_err(|mistakes| Failure::usage(mistakes.to_string()))?;
            telemetry::log(&log, telemetry::COMMAND);
            in_runtime(|stop| tail::run(args, stop))
        }
        Command::Replay(args) => replay(args),
        Command::Status(args) => status(args),
        Command::Doctor(args) => doctor(args),
        Command::Explain(args) => explain(args),
        Command::Completions(args) => Ok(completions::run(args.shell)?),
    }
}

/// Reads the settings and starts logging.
fn load<const SCOPE: u8>(flags: SettingsFlags<SCOPE>, log: &str) -> Result<ServeSettings, Failure> {
    let settings = ServeSettings::load(&flags.into_sources())
        .map_err(|mistakes| Failure::usage(mistakes.to_string()))?;
    telemetry::log(&settings.log, log);
    Ok(settings)
}

/// Runs `work` until it ends; its token is cancelled by SIGINT and SIGTERM, and the second of them ends the process.
fn in_runtime<F>(work: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let _signals = AbortOnDropHandle::new(tokio::spawn(watch_signals(stop.clone())?));
        // Boxed: the commands' futures are large, and there is one of them.
        Box::pin(work(stop)).await
    })
}

/// Signals are caught from here on, not from the first poll on.
fn watch_signals(stop: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        for is_first in [true, false] {
            // Both are cancel-safe: a signal that is not received now is received by the next call.
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if !is_first {
                std::process::exit(code);
            }
            stop.cancel();
        }
    })
}

/// `command`: what is to be run again when that is mended.
fn setup_failure(error: &SetupError, command: &str) -> Failure {
    Failure::because(error).hint(error.hint(command))
}

/// The same of what was to drop something: where it has not come to that, it says so first.
fn drop_failure(error: &SetupError, command: &str, has_dropped: bool) -> Failure {
    let mut failure = setup_failure(error, command);
    // What only an administrator may drop says itself what is left.
    if !has_dropped && !matches!(error, SetupError::LeftOver { .. }) {
        failure.message.insert_str(0, "nothing was dropped: ");
    }
    failure
}

fn serve(args: ServeArgs) -> Result<(), Failure> {
    let settings = ServeSettings::load_to_serve(&args.settings.into_sources())
        .map_err(|mistakes| Failure::usage(mistakes.to_string()))?;
    telemetry::log(&settings.log, telemetry::DAEMON);
    let policies = settings.entrance.policies().map(PolicyFile::open).transpose();
    let policies = policies.map_err(|error| Failure::usage(error.to_string()))?;
    in_runtime(|stop| async move {
        let (said, reload) = watch::channel(());
        let _hangups = AbortOnDropHandle::new(tokio::spawn(watch_hangups(said)?));
        daemon(settings, policies, reload, stop).await
    })
}

/// SIGHUP says that keys, certificate or policies have changed. Caught from here on.
fn watch_hangups(said: watch::Sender<()>) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangups.recv().await.is_some() {
            said.send_replace(());
        }
    })
}

async fn daemon(
    settings: ServeSettings,
    policies: Option<PolicyFile>,
    reload: watch::Receiver<()>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let metrics = telemetry::count()?;
    let _upkeep = AbortOnDropHandle::new(tokio::spawn(telemetry::upkeep(metrics.clone())));
    let version = env!("CARGO_PKG_VERSION");
    let listening = |addresses: &[String]| {
        addresses.iter().for_each(|address| tracing::info!(version, "listening on {address}"));
    };
    Box::pin(app::serve(settings, policies, metrics, reload, stop, listening))
        .await
        .map_err(|error| Failure::because(&error).hint(error.hint()))
}

async fn demo(args: DemoArgs, stop: CancellationToken) -> Result<(), Failure> {
    let run = |plan: DemoDaemon, stop: CancellationToken| async move {
        let flags = [
            ("database-url", plan.database_url),
            ("listen", plan.listen.to_string()),
            ("slot", plan.slot),
            ("publication", plan.publication),
            // Nothing in the shop is worth a secret, and whoever names an address means it.
            ("insecure", true.to_string()),
        ];
        let flags = flags.into_iter().map(|(flag, value)| (flag, vec![value]));
        // Not the environment's: its settings are for the user's own database.
        let settings = ServeSettings::load(&Sources::of(flags.collect(), BTreeMap::new()))?;
        let (_said, reload) = watch::channel(());
        daemon(settings, None, reload, stop).await.map_err(|failure| failure.message.into())
    };
    let sources = Sources::of_process(BTreeMap::new(), None);
    let log = ServeSettings::load_log(&sources).map_err(|mistakes| Failure::usage(mistakes.to_string()))?;
    telemetry::log(&log, telemetry::COMMAND);
    demo::run(args, stop, run).await.map_err(|error| Failure::because(&error))
}

fn setup(args: SetupArgs) -> Result<(), Failure> {
    let (form, settings) = (Form::choose(args.form), load(args.settings, telemetry::COMMAND)?);
    in_runtime(|stop| async move {
        let target = Target::of(&settings);
        let work = async {
            if args.print {
                let sql =
                    setup::print(&target).await.map_err(|error| setup_failure(&error, "walcast setup"))?;
                let mut out = io::stdout().lock();
                out.write_all(sql.as_bytes())?;
                return Ok(out.flush()?);
            }
            let record = match args.start_over {
                true => start_over(form, &target, args.yes).await?,
                false => setup::prepare(&target, StartOver::Never, &mut |note| say(form, &note))
                    .await
                    .map_err(|error| setup_failure(&error, "walcast setup"))?,
            };
            let note = setup::wal_limit_note(&target)
                .await
                .map_err(|error| setup_failure(&error, "walcast setup"))?;
            if let Some(note) = note {
                say(form, &note);
            }
            if form == Form::Human {
                let position = record.position;
                writeln!(
                    anstream::stdout(),
                    "{GREEN}ready{GREEN:#}: feed {} at {position}; next: walcast serve",
                    record.id
                )?;
            }
            Ok(())
        };
        stop.run_until_cancelled(work).await.unwrap_or_else(|| Err(Failure::interrupted()))
    })
}

/// Shows what goes with the feed that is there, and begins another one.
async fn start_over(form: Form, target: &Target, yes: bool) -> Result<FeedRecord, Failure> {
    // What is to be run again when what is in the way is mended.
    let command = if yes { "walcast setup --start-over --yes" } else { "walcast setup --start-over" };
    let loss = Loss::find(target).await.map_err(|error| drop_failure(&error, command, false))?;
    ask(form, &loss, &loss.lines(), loss.is_empty() || yes)?;
    let mut has_dropped = loss.is_empty();
    let mut note = |note: Note| {
        // The slot is dropped, or made anew for the feed in whose favour the history is dropped then.
        has_dropped |= note.changed && note.subject == "slot";
        say(form, &note);
    };
    let prepared = setup::prepare(target, StartOver::Always, &mut note).await;
    prepared.map_err(|error| drop_failure(&error, command, has_dropped))
}

/// Shows what is about to be dropped; `lines`: the same for people.
fn ask(form: Form, what: &impl Serialize, lines: &[String], may_go_on: bool) -> Result<(), Failure> {
    match form {
        Form::Json => json_line(what)?,
        Form::Human => {
            let mut out = anstream::stdout();
            for line in lines {
                writeln!(out, "{}", wrap_message(line, 0, WIDTH))?;
            }
            if lines.is_empty() {
                writeln!(out, "nothing to drop")?;
            }
        }
    }
    if may_go_on { Ok(()) } else { Err(Failure::new("nothing was dropped; add --yes to drop this")) }
}

/// Prints one thing that was done.
fn say(form: Form, note: &Note) {
    // What is being done must be finished, whether somebody reads it or not.
    let _ = match form {
        Form::Json => json_line(note),
        Form::Human => {
            let mark = if note.changed { GREEN } else { DIM };
            let message = wrap(&note.message, MESSAGE);
            let fix = note.fix.as_ref().map(|fix| wrap_statement(fix, MESSAGE));
            let fix = fix.map(|fix| format!("\n{:MESSAGE$}{CYAN}{fix}{CYAN:#}", "")).unwrap_or_default();
            writeln!(anstream::stdout(), "{mark}{:>11}{mark:#}  {message}{fix}", note.subject)
        }
    };
}

fn teardown(args: TeardownArgs) -> Result<(), Failure> {
    let (form, settings) = (Form::choose(args.form), load(args.settings, telemetry::COMMAND)?);
    in_runtime(|stop| async move {
        let target = Target::of(&settings);
        let work = async {
            let found =
                Belongings::find(&target).await.map_err(|error| setup_failure(&error, "walcast teardown"))?;
            ask(form, &found, &found.lines(), found.is_empty() || args.yes)?;
            if found.is_empty() {
                return Ok(());
            }
            let mut has_dropped = false;
            let mut note = |note: Note| {
                has_dropped |= note.changed;
                say(form, &note);
            };
            let removed = found.remove(&target, &mut note).await;
            removed.map_err(|error| drop_failure(&error, "walcast teardown --yes", has_dropped))
        };
        stop.run_until_cancelled(work).await.unwrap_or_else(|| Err(Failure::interrupted()))
    })
}

fn replay(args: ReplayArgs) -> Result<(), Failure> {
    let flags = args.settings.clone();
    let settings = load(flags, telemetry::COMMAND)?;
    in_runtime(|stop| async move { replay::run(args, &settings, stop).await })
}

fn explain(args: ExplainArgs) -> Result<(), Failure> {
    let settings = load(args.settings.clone(), telemetry::COMMAND)?;
    in_runtime(|stop| async move { explain::run(args, &settings, stop).await })
}

fn status(args: StatusArgs) -> Result<(), Failure> {
    let (form, settings) = (Form::choose(args.form), load(args.settings, telemetry::COMMAND)?);
    in_runtime(|stop| async move {
        let listen = args.daemon.unwrap_or_else(|| {
            settings.entrance.health_address().map(ToString::to_string).unwrap_or_default()
        });
        let target = Target::of(&settings);
        let status =
            stop.run_until_cancelled(Status::gather(&target, &listen, settings.wal_budget.wal_budget)).await;
        let mut status = status.ok_or_else(Failure::interrupted)?;
        let listing = status.set_clients(&target, &settings.clients.keep_clients, args.clients);
        stop.run_until_cancelled(listing).await.ok_or_else(Failure::interrupted)?;
        match form {
            Form::Json => json_line(&status)?,
            Form::Human => {
                let mut out = anstream::stdout();
                for (name, value) in status.lines() {
                    let style = if name == "problem" { RED } else { BOLD };
                    writeln!(out, "{style}{name:<12}{style:#}  {}", wrap(&value, 14))?;
                }
            }
        }
        if status.problems.is_empty() { Ok(()) } else { Err(Failure::silent(1)) }
    })
}

fn doctor(args: DoctorArgs) -> Result<(), Failure> {
    let form = Form::choose(args.form);
    let examined = ServeSettings::examine(&args.settings.into_sources());
    let Examined { settings, policies, refused } =
        examined.map_err(|mistakes| Failure::usage(mistakes.to_string()))?;
    telemetry::log(&settings.log, telemetry::COMMAND);
    in_runtime(|stop| async move {
        let target = Target::of(&settings);
        let look = async {
            let mut findings = doctor::settings_findings(&refused);
            findings.extend(doctor::examine(&target, settings.wal_budget.wal_budget).await);
            if let Some(path) = policies {
                findings.extend(doctor::policies_findings(&path, &target).await);
            }
            findings
        };
        let findings = stop.run_until_cancelled(look).await.ok_or_else(Failure::interrupted)?;
        match form {
            Form::Json => findings.iter().try_for_each(json_line)?,
            Form::Human => doctor::show(&findings, &mut anstream::stdout())?,
        }
        let has_errors = findings.iter().any(|finding| finding.severity == Severity::Error);
        if has_errors { Err(Failure::silent(UNHEALTHY)) } else { Ok(()) }
    })
}
