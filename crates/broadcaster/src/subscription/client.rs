//! Who subscribes, and under which name what it acknowledges is kept.

use walcast_history::{ClientKey, ClientName};
use walcast_protocol::{ErrorCode, StartAt};

use crate::refusal::Refusal;
use crate::request::{Request, has_control};
use crate::turns::Applicant;

/// The longest subject for which something is kept, in bytes: an index has to hold it.
const USER_BYTES_MAX: usize = 512;
/// Names of tables that are kept for people, in bytes; more are left out.
const NAMED_BYTES_MAX: usize = 200;

/// Who subscribes.
pub(crate) struct Client<'a> {
    /// In whose line its initial syncs stand.
    pub(crate) applicant: Applicant,
    /// Of whom what it acknowledges is; empty where nobody asks who clients are, `None` where that is not known.
    pub(crate) user: Option<&'a str>,
}

impl Client<'_> {
    /// Under which name it acknowledges; `None` for one who does not.
    pub(super) fn key(&self, request: &mut Request) -> Result<Option<ClientKey>, Refusal> {
        let Some(client_id) = request.client_id.take() else { return Ok(None) };
        let Some(user) = self.user.filter(|user| user.len() <= USER_BYTES_MAX && !has_control(user)) else {
            if request.start != StartAt::Acked {
                return Ok(None);
            }
            let message = "nothing is kept for a client without a user: others could use the same client_id";
            let refusal = Refusal::new(ErrorCode::Forbidden, message);
            return Err(refusal.hint("send a token with a subject (sub)"));
        };
        let name = ClientName { user: user.to_owned(), client_id: client_id.into_string() };
        Ok(Some(ClientKey { name, subscription: request.id.as_str().to_owned() }))
    }
}

/// What a request is over, for people.
pub(super) fn named(request: &Request) -> String {
    let mut text = String::new();
    for pattern in request.tables.keys() {
        if text.len() > NAMED_BYTES_MAX {
            text.push_str(" …");
            break;
        }
        // Names of tables may hold anything.
        let name = pattern.to_string().replace(char::is_control, "?");
        text.push_str(if text.is_empty() { "" } else { ", " });
        text.push_str(&name);
    }
    text
}
