//! What the query of `GET /v1/changes` asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use walcast_model::FeedId;
use walcast_protocol::{StartAt, Subscribe, SubscriptionId, TablePattern, TableSelection};

use super::answer;
use crate::limits::Limits;
use crate::refusal::Refusal;
use crate::request::Request;

/// A query that was understood.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) request: Request,
    pub(super) form: Form,
}

/// In which form the transactions come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// One answer.
    Page {
        /// Whole transactions in it, at least 1.
        transactions_max: usize,
        /// How long it may wait for the first one.
        wait: Duration,
    },
    /// Server-sent events, without end.
    Events,
}

/// The name of the subscription that a request is.
const ID: &str = "changes";

/// What is said of one table, or of the only one.
#[derive(Debug, Default)]
struct Said {
    filter: Option<String>,
    columns: Option<Vec<String>>,
}

impl Query {
    pub(super) fn read(query: &str, headers: &HeaderMap, limits: &Limits) -> Result<Self, Refusal> {
        let mut tables: Vec<TablePattern> = Vec::new();
        // By the table that they name; `None` for those that name none.
        let mut said: BTreeMap<Option<TablePattern>, Said> = BTreeMap::new();
        let mut once: BTreeMap<&'static str, String> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let (word, table) = match name.split_once('.') {
                Some((word @ ("where" | "columns"), table)) => (word, Some(pattern(table)?)),
                _ => (name.as_ref(), None),
            };
            let mut keep = |name: &'static str, value: String| match once.insert(name, value) {
                None => Ok(()),
                Some(_) => Err(Refusal::bad(format!("{name} is given twice"))),
            };
            match word {
                "tables" => {
                    for name in split(&value).filter(|name| !name.is_empty()) {
                        tables.push(pattern(name)?);
                    }
                }
                "where" => {
                    if said.entry(table).or_default().filter.replace(value.into_owned()).is_some() {
                        return Err(Refusal::bad(format!("{name} is given twice")));
                    }
                }
                "columns" => {
                    let columns = split(&value).filter(|name| !name.is_empty()).map(unquoted);
                    said.entry(table).or_default().columns.get_or_insert_default().extend(columns);
                }
                "cursor" => keep("cursor", value.into_owned())?,
                "feed" => keep("feed", value.into_owned())?,
                "limit" => keep("limit", value.into_owned())?,
                "wait" => keep("wait", value.into_owned())?,
                "origin" => keep("origin", value.into_owned())?,
                // Looked at already.
                "token" => {}
                // Not ignored: a where that is misspelt would give more rows than were asked for.
                _ => {
                    let name: String = name.chars().take(60).collect();
                    let hint = "known are tables, where, where.<table>, columns, columns.<table>, cursor, feed, limit, \
                                wait, origin and token";
                    return Err(Refusal::bad(format!("there is no parameter {name:?}")).hint(hint));
                }
            }
        }
        let entries = selections(tables, said)?;
        let form = form(headers, &once, limits)?;
        let (start, feed) = start(headers, &once, form)?;
        let id: SubscriptionId = ID.parse().map_err(|_| Refusal::bad("no subscription"))?;
        let mut message = Subscribe::new(id, Vec::new());
        message.tables = entries;
        (message.cursor, message.feed) = (start, feed);
        message.origin = once.remove("origin");
        Ok(Self { request: Request::try_from(message)?, form })
    }
}

/// The entries of the subscription: each table with what is said of it.
fn selections(
    tables: Vec<TablePattern>,
    mut said: BTreeMap<Option<TablePattern>, Said>,
) -> Result<Vec<TableSelection>, Refusal> {
    if tables.is_empty() {
        let hint = "write tables=schema.table, several between commas, or schema.* or * for many";
        return Err(Refusal::bad("tables is missing").hint(hint));
    }
    if let Some(only) = said.remove(&None) {
        let [table] = tables.as_slice() else {
            let message = "where and columns without a table are for a request of one table";
            let hint = format!(
                "name the table, as in where.{}=",
                tables.first().map_or(String::new(), ToString::to_string)
            );
            return Err(Refusal::bad(message).hint(hint));
        };
        if said.insert(Some(table.clone()), only).is_some() {
            return Err(Refusal::bad(format!("what is wanted of {table} is said with its name and without")));
        }
    }
    let mut entries = Vec::with_capacity(tables.len());
    for table in tables {
        let Said { filter, columns } = said.remove(&Some(table.clone())).unwrap_or_default();
        entries.push(TableSelection { table, filter, columns });
    }
    match said.into_keys().flatten().next() {
        None => Ok(entries),
        Some(table) => {
            let message = format!("something is said of {table}, which is not among tables");
            Err(Refusal::bad(message).hint("add it to tables, spelled alike"))
        }
    }
}

fn form(headers: &HeaderMap, once: &BTreeMap<&str, String>, limits: &Limits) -> Result<Form, Refusal> {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.contains("text/event-stream")) {
        if let Some(name) = ["limit", "wait"].into_iter().find(|name| once.contains_key(name)) {
            return Err(Refusal::bad(format!("{name} is for pages, and this is a stream of events")));
        }
        return Ok(Form::Events);
    }
    let transactions_max = match once.get("limit") {
        None => limits.poll_transactions_max,
        Some(text) => match text.parse::<usize>() {
            Ok(count @ 1..) => count.min(limits.poll_transactions_max),
            _ => return Err(Refusal::bad("limit is a number of transactions, at least 1")),
        },
    };
    let wait = once.get("wait").map_or(Ok(Duration::ZERO), |text| duration(text))?.min(limits.poll_wait_max);
    Ok(Form::Page { transactions_max, wait })
}

/// Where it starts. What a browser says that it has of a stream counts before what its page asked for at first.
fn start(
    headers: &HeaderMap,
    once: &BTreeMap<&str, String>,
    form: Form,
) -> Result<(StartAt, Option<FeedId>), Refusal> {
    let last = headers.get("last-event-id").filter(|_| form == Form::Events);
    let last = last.map(|value| value.to_str().unwrap_or("?")).filter(|text| !text.is_empty());
    if let Some(text) = last {
        return place(text);
    }
    let (start, of_cursor) = once.get("cursor").map_or(Ok((StartAt::Snapshot, None)), |text| place(text))?;
    let feed = once.get("feed").map(|text| feed(text)).transpose()?;
    if start == StartAt::Snapshot && form != Form::Events {
        return Err(Refusal::bad("an initial sync does not come in pages").hint(answer::BEGIN_NOW));
    }
    Ok((start, of_cursor.or(feed)))
}

/// A cursor, alone or behind its feed: `f_7Jq2@16/B374D848`.
fn place(text: &str) -> Result<(StartAt, Option<FeedId>), Refusal> {
    let (of, cursor) = match text.split_once('@') {
        Some((of, cursor)) => (Some(feed(of)?), cursor),
        None => (None, text),
    };
    let start = cursor.parse::<StartAt>().map_err(|_| {
        let shown: String = cursor.chars().take(40).collect();
        let hint =
            "send the cursor of the page or event before, such as 16/B374D848, or cursor=latest to begin now";
        Refusal::bad(format!("cursor is not a cursor: {shown:?}")).hint(hint)
    })?;
    if start == StartAt::Acked {
        let refusal = Refusal::bad("the cursor \"acked\" is what a client acknowledged, by WebSocket only");
        return Err(refusal.hint("store the cursor with what was applied, and send it"));
    }
    Ok((start, of))
}

fn feed(text: &str) -> Result<FeedId, Refusal> {
    text.parse().map_err(|_| Refusal::bad("feed is not the id of a feed"))
}

fn pattern(text: &str) -> Result<TablePattern, Refusal> {
    text.trim()
        .parse()
        .map_err(|error: walcast_protocol::ParseTablePatternError| Refusal::bad(error.to_string()))
}

/// `500ms`, `30s`, `1min`.
fn duration(text: &str) -> Result<Duration, Refusal> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(number) if millis > 0 => Ok(Duration::from_millis(number.saturating_mul(millis))),
        _ => Err(Refusal::bad("wait is a time such as 500ms, 30s or 1min")),
    }
}

/// The entries between commas that are not inside double quotes.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let entries = list.split(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    });
    entries.map(str::trim)
}

/// A column's name, which has to be quoted as in SQL only where it holds a comma or a quote.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{HeaderMap, HeaderValue};
    use walcast_protocol::StartAt;

    use super::{Form, Query};
    use crate::limits::Limits;
    use crate::refusal::Refusal;

    fn read(query: &str, headers: &[(&'static str, &str)]) -> Result<Query, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        Query::read(query, &map, &Limits::default())
    }

    #[test]
    fn tables_and_what_is_wanted_of_them() {
        let query = "tables=public.a,b.*&tables=public.%22x%2Cy%22&where.public.a=id+%3E+1&columns.public.a=x,%22y,z%22\
                     &cursor=0/10&limit=7&wait=90s&token=t";
        let read = read(query, &[]).unwrap();
        let tables: Vec<String> = read.request.tables.keys().map(ToString::to_string).collect();
        assert_eq!(tables, ["b.*", "public.a", "public.x,y"]);
        let asked = &read.request.tables[&"public.a".parse().unwrap()];
        assert!(asked.rows.is_some());
        assert_eq!(asked.columns.clone().unwrap().into_iter().collect::<Vec<_>>(), ["x", "y,z"]);
        assert_eq!(read.form, Form::Page { transactions_max: 7, wait: Duration::from_secs(60) });
    }

    #[test]
    fn the_last_event_of_a_stream_counts_before_the_cursor_of_its_url() {
        let events = ("accept", "text/event-stream");
        let query = "tables=*&cursor=0/10&feed=f_1";
        let resumed = read(query, &[events, ("last-event-id", "f_2@0/20:3")]).unwrap().request;
        assert_eq!(
            (resumed.start.to_string(), resumed.feed.unwrap().to_string()),
            ("0/20:3".into(), "f_2".into())
        );
        let over = read(query, &[events, ("last-event-id", "0/0")]).unwrap().request;
        assert_eq!((over.start, over.feed), (StartAt::Snapshot, None));
        for headers in [&[events, ("last-event-id", "")][..], &[("last-event-id", "0/20")]] {
            let first = read(query, headers).unwrap().request;
            assert_eq!(
                (first.start.to_string(), first.feed.unwrap().to_string()),
                ("0/10".into(), "f_1".into())
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        let refused = [
            ("", "tables is missing"),
            ("tables=a&cursor=latest", "schema.table"),
            ("tables=*", "does not come in pages"),
            ("tables=*&cursor=0/0", "does not come in pages"),
            ("tables=*&cursor=nonsense", "not a cursor"),
            ("tables=*&cursor=0/1&cursor=0/2", "twice"),
            ("tables=*&cursor=0/1&were=x", "were"),
            ("tables=a.b,a.c&where=x=1&cursor=0/1", "one table"),
            ("tables=a.b&where=x=1&where.a.b=x=1&cursor=0/1", "with its name and without"),
            ("tables=a.b&where.a.c=x=1&cursor=0/1", "not among tables"),
            ("tables=a.b,a.b&cursor=0/1", "twice"),
            ("tables=*&cursor=0/1&limit=0", "limit"),
            ("tables=*&cursor=0/1&wait=30", "wait"),
            ("tables=*&cursor=acked", "acked"),
        ];
        for (query, words) in refused {
            let refusal = read(query, &[]).unwrap_err();
            assert!(refusal.message.contains(words), "{query}: {refusal}");
        }
        assert!(read("tables=*", &[("accept", "text/event-stream")]).is_ok());
        assert!(read("tables=*&wait=1s", &[("accept", "text/event-stream")]).is_err());
    }
}
