//! What is said, to people and to programs.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;
use walcast_policy::ChannelGrant;

use super::request::{ChannelRequest, Request};
use crate::output::{BOLD, CYAN, DIM, Form, GREEN, RED, json_line, wrap};

/// What a stage does with a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It passes on.
    Keeps,
    /// It ends here.
    Drops,
    /// It has no say, but something to say.
    Notes,
}

/// One stage of the way from the table to the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Stage {
    /// `publication`, `policy`, `where`, `columns`, `history`, `source`; of a channel `policy`, `name`.
    pub(super) stage: &'static str,
    pub(super) outcome: Outcome,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

impl Stage {
    pub(super) fn new(stage: &'static str, outcome: Outcome, message: impl Into<String>) -> Self {
        Self { stage, outcome, message: message.into(), hint: None }
    }

    pub(super) fn keeps(stage: &'static str, message: impl Into<String>) -> Self {
        Self::new(stage, Outcome::Keeps, message)
    }

    pub(super) fn drops(stage: &'static str, message: impl Into<String>) -> Self {
        Self::new(stage, Outcome::Drops, message)
    }

    pub(super) fn notes(stage: &'static str, message: impl Into<String>) -> Self {
        Self::new(stage, Outcome::Notes, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A row or a change and what becomes of it.
#[derive(Debug, Serialize)]
pub(super) struct Delivery {
    /// `row` for the row as it is now, `change` for one of history.
    pub(super) of: &'static str,
    /// Of a change: where it is in the feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lsn: Option<String>,
    /// What it is, for people.
    pub(super) what: String,
    pub(super) stages: Vec<Stage>,
    /// Whether a client is sent anything of it.
    pub(super) delivered: bool,
    /// What the client is sent: an element of `rows` in a `snapshot`, or of `changes` in a `transaction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sent: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct OfTable<'a> {
    of: &'static str,
    table: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    stages: &'a [Stage],
    delivered: bool,
}

/// What may be done in a channel.
#[derive(Debug, Serialize)]
pub(super) struct OfChannel<'a> {
    of: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    stages: &'a [Stage],
    /// Being in it, and hearing what is said.
    join: bool,
    publish: bool,
    /// Being shown, and seeing who is there and who says what.
    presence: bool,
}

/// Whether nothing stopped it.
pub(super) fn passes(stages: &[Stage]) -> bool {
    stages.iter().all(|stage| stage.outcome != Outcome::Drops)
}

/// Writes what was found, as it is found.
#[derive(Debug)]
pub(super) struct Printer(Form);

impl Printer {
    pub(super) const fn new(form: Form) -> Self {
        Self(form)
    }

    /// What holds for every row and change.
    pub(super) fn table(&self, request: &Request, stages: &[Stage]) -> io::Result<()> {
        let role = request.asker.bearer().map(|bearer| bearer.role.as_str());
        if self.0 == Form::Json {
            let (table, delivered) = (request.table.to_string(), passes(stages));
            return json_line(&OfTable { of: "table", table, role, stages, delivered });
        }
        writeln!(anstream::stdout(), "{BOLD}{}{BOLD:#} for {}", request.table, whom(role))?;
        lines(stages)
    }

    /// What may be done in a channel; `None`: it may not be joined.
    pub(super) fn channel(
        &self,
        request: &ChannelRequest,
        stages: &[Stage],
        grant: Option<ChannelGrant>,
    ) -> io::Result<()> {
        let role = request.asker.bearer().map(|bearer| bearer.role.as_str());
        let (channel, join) = (request.channel.as_str(), grant.is_some());
        let ChannelGrant { publish, presence } = grant.unwrap_or_default();
        if self.0 == Form::Json {
            return json_line(&OfChannel { of: "channel", channel, role, stages, join, publish, presence });
        }
        let mut out = anstream::stdout();
        writeln!(out, "{BOLD}channel {channel:?}{BOLD:#} for {}", whom(role))?;
        lines(stages)?;
        for (may, what) in [
            (join, "join it and hear what is said"),
            (publish, "publish"),
            (presence, "be shown, and see who is there and who says what (presence)"),
        ] {
            let (style, word) = if may { (GREEN, "may") } else { (RED, "may not") };
            writeln!(out, "  {style}{word:<7}{style:#}  {what}")?;
        }
        Ok(())
    }

    pub(super) fn delivery(&self, delivery: &Delivery) -> io::Result<()> {
        if self.0 == Form::Json {
            return json_line(delivery);
        }
        let mut out = anstream::stdout();
        writeln!(out, "{BOLD}{}{BOLD:#}", wrap(&delivery.what, 0))?;
        lines(&delivery.stages)?;
        match &delivery.sent {
            Some(sent) => writeln!(out, "  {GREEN}sent{GREEN:#}   {}", sent.get()),
            None if delivery.delivered => Ok(()),
            None => writeln!(out, "  {RED}nothing is sent{RED:#}"),
        }
    }
}

/// Columns before what a stage says.
const MESSAGE: usize = 22;

fn whom(role: Option<&str>) -> String {
    role.map_or_else(|| "anybody".to_owned(), |role| format!("role {role:?}"))
}

fn lines(stages: &[Stage]) -> io::Result<()> {
    let mut out = anstream::stdout();
    for Stage { stage, outcome, message, hint } in stages {
        let (style, word) = match outcome {
            Outcome::Keeps => (GREEN, "keeps"),
            Outcome::Drops => (RED, "drops"),
            Outcome::Notes => (DIM, "notes"),
        };
        writeln!(out, "  {style}{word}{style:#}  {stage:<11}  {}", wrap(message, MESSAGE))?;
        if let Some(hint) = hint {
            writeln!(out, "{:MESSAGE$}{CYAN}{}{CYAN:#}", "", wrap(hint, MESSAGE))?;
        }
    }
    Ok(())
}
