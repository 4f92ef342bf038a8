//! Who a client is, after its token was verified.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::error::Rejection;

/// The claims of a token: what policies ask for.
pub type Claims = Map<String, Value>;

/// A client whose token was verified. Cheap to clone.
#[derive(Clone, PartialEq, Debug)]
pub struct Identity {
    role: Arc<str>,
    subject: Option<Arc<str>>,
    claims: Arc<Claims>,
    json: Arc<str>,
    expires_at: Option<SystemTime>,
}

impl Identity {
    /// From the payload of a verified token, a JSON object: the role is the claim `role_claim` (a path: `app.role`), or
    /// `default_role` where it is absent.
    ///
    /// # Errors
    /// When it is no object, or when `role`, `sub` or `exp` is there and has another type than it must have.
    pub(crate) fn new(payload: &str, role_claim: &str, default_role: &str) -> Result<Self, Rejection> {
        let claims: Claims = serde_json::from_str(payload).map_err(|_| Rejection::Malformed)?;
        let text = |value: Option<&Value>, name: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Arc::from(text.as_str()))),
            Some(_) => Err(Rejection::Claim(name.to_owned())),
        };
        let mut path = role_claim.split('.');
        let first = path.next().and_then(|name| claims.get(name));
        let role = text(path.try_fold(first, |value, name| Some(value?.get(name))).flatten(), role_claim)?;
        let subject = text(claims.get("sub"), "sub")?;
        let expires_at = match claims.get("exp") {
            None => None,
            Some(exp) => Some(time(exp).ok_or_else(|| Rejection::Claim("exp".to_owned()))?),
        };
        let role = role.unwrap_or_else(|| Arc::from(default_role));
        Ok(Self { role, subject, claims: Arc::new(claims), json: Arc::from(payload), expires_at })
    }

    /// What policies are looked up by.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The claim `sub`: the user.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// All claims. A large number has lost digits here; [`Identity::claims_json`] has them.
    pub const fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    /// All claims, as the JSON object that was signed.
    pub fn claims_json(&self) -> &str {
        &self.json
    }

    /// From then on, the token says nothing any more (without leeway); `None` for one that never expires.
    pub const fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

/// A `NumericDate` (RFC 7519, section 2): seconds since 1970, perhaps with a fraction.
fn time(value: &Value) -> Option<SystemTime> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Identity;
    use crate::error::Rejection;

    #[expect(clippy::needless_pass_by_value, reason = "written down on the spot")]
    fn identity(claims: Value) -> Result<Identity, Rejection> {
        Identity::new(&claims.to_string(), "app.role", "anybody")
    }

    #[test]
    fn a_role_is_found_by_its_path_and_has_a_default() {
        assert_eq!(identity(json!({"app": {"role": "clerk"}})).unwrap().role(), "clerk");
        assert_eq!(identity(json!({"app": {}})).unwrap().role(), "anybody");
        assert_eq!(identity(json!({"role": "clerk"})).unwrap().role(), "anybody");
        assert_eq!(identity(json!({"app": "clerk"})).unwrap().role(), "anybody");
    }

    #[test]
    fn a_claim_of_another_type_is_refused_and_never_guessed() {
        let refused = |claims| identity(claims).unwrap_err();
        assert_eq!(refused(json!({"app": {"role": ["clerk"]}})), Rejection::Claim("app.role".to_owned()));
        assert_eq!(refused(json!({"sub": 7})), Rejection::Claim("sub".to_owned()));
        assert_eq!(refused(json!({"exp": "tomorrow"})), Rejection::Claim("exp".to_owned()));
        assert_eq!(refused(json!({"exp": -1})), Rejection::Claim("exp".to_owned()));
        assert_eq!(refused(json!({"exp": 1e300})), Rejection::Claim("exp".to_owned()));
    }
}
