//! Proving who we are, as the server asks for it.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use crate::connection_string::{
    AuthMethod, ChannelBindingMode, ConnectionConfig, Host, PassfileLookup, Secret, SslMode,
};
use crate::dial::server_end_point;
use crate::error::UNNAMED;
use crate::{Error, Stream, Wire};

/// Answers the server's questions until it is satisfied.
///
/// What walcast refuses and libpq would not: to send the password in clear text over TCP without TLS, unless the
/// connection string says `sslmode=disable` in so many words.
pub(crate) async fn authenticate(
    wire: &mut Wire,
    config: &ConnectionConfig,
    host: &Host,
    server: &str,
) -> Result<(), Error> {
    Login { wire, config, host, server }.run().await
}

struct Login<'a> {
    wire: &'a mut Wire,
    config: &'a ConnectionConfig,
    host: &'a Host,
    server: &'a str,
}

impl Login<'_> {
    async fn run(mut self) -> Result<(), Error> {
        match self.next().await? {
            Message::AuthenticationOk => {
                self.allow(AuthMethod::None)?;
                return self.without_channel_binding();
            }
            Message::AuthenticationCleartextPassword => {
                self.allow(AuthMethod::Password)?;
                self.without_channel_binding()?;
                if !self.wire.stream.is_private() && self.config.tls.mode != SslMode::Disable {
                    return Err(self.refuse(
                        "the server wants the password in clear text over a connection without TLS; use \
                         sslmode=require, or sslmode=disable to send it all the same",
                    ));
                }
                let password = self.password()?;
                self.send_password(password.reveal().as_bytes()).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                self.allow(AuthMethod::Md5)?;
                self.without_channel_binding()?;
                let password = self.password()?;
                let hash = md5_hash(self.config.user.as_bytes(), password.reveal().as_bytes(), body.salt());
                self.send_password(hash.as_bytes()).await?;
            }
            Message::AuthenticationSasl(body) => {
                self.allow(AuthMethod::ScramSha256)?;
                self.scram(&body).await?;
            }
            Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
                return Err(
                    self.refuse("the server wants GSSAPI, which walcast does not have; use scram-sha-256")
                );
            }
            _ => return Err(Error::Protocol("an unknown way to log in".into())),
        }
        match self.next().await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(Error::Protocol("the login did not end".into())),
        }
    }

    /// The next message; an error of the server ends the login.
    async fn next(&mut self) -> Result<Message, Error> {
        loop {
            match self.wire.next_greeting().await? {
                Message::ErrorResponse(body) => return Err(Error::from_response(&body)),
                Message::NoticeResponse(_) => {}
                message => return Ok(message),
            }
        }
    }

    fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::Authentication { server: self.server.to_owned(), problem: problem.into() }
    }

    fn without_password(&self, why: &str) -> Error {
        let problem = format!("the server wants a password for {:?}, and {why}", self.config.user);
        Error::NoPassword { server: self.server.to_owned(), problem }
    }

    fn allow(&self, method: AuthMethod) -> Result<(), Error> {
        match &self.config.require_auth {
            Some(allowed) if !allowed.0.contains(&method) => {
                Err(self.refuse(format!("the server asks for {method:?}, which require_auth does not allow")))
            }
            _ => Ok(()),
        }
    }

    fn without_channel_binding(&self) -> Result<(), Error> {
        if self.config.channel_binding == ChannelBindingMode::Require {
            return Err(self
                .refuse("channel_binding=require, but the server did not use it (it needs TLS and SCRAM)"));
        }
        Ok(())
    }

    fn password(&self) -> Result<Secret, Error> {
        if let Some(password) = &self.config.password {
            return Ok(password.clone());
        }
        match self.config.passfile_lookup(self.host) {
            PassfileLookup::Found(password) => Ok(password),
            PassfileLookup::Nothing => {
                let url = self.config.name().unwrap_or(UNNAMED);
                Err(self.without_password(&format!("neither {url}, PGPASSWORD nor the passfile has one")))
            }
            PassfileLookup::Unusable(problem) => Err(self.without_password(&problem)),
        }
    }

    async fn send_password(&mut self, password: &[u8]) -> Result<(), Error> {
        let mut message = BytesMut::new();
        // The one reason to fail is a NUL, which cannot be part of a message.
        frontend::password_message(password, &mut message)
            .map_err(|_| self.refuse("the password holds a NUL"))?;
        self.wire.send(&message).await
    }

    /// SCRAM-SHA-256, bound to the TLS channel when both sides can (RFC 5802, 7677, 5929).
    async fn scram(&mut self, body: &AuthenticationSaslBody) -> Result<(), Error> {
        let offered: Vec<&str> =
            body.mechanisms().collect().map_err(|error| Error::Protocol(error.to_string()))?;
        let server_binds = offered.contains(&sasl::SCRAM_SHA_256_PLUS);
        let end_point = match &self.wire.stream {
            Stream::Tls(stream) if self.config.channel_binding != ChannelBindingMode::Disable => stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first())
                .and_then(server_end_point),
            _ => None,
        };
        let (binding, mechanism) = match end_point {
            Some(end_point) if server_binds => {
                (ChannelBinding::tls_server_end_point(end_point), sasl::SCRAM_SHA_256_PLUS)
            }
            // We could and the server says it cannot: if somebody took its offer away, the login fails.
            Some(_) => (ChannelBinding::unrequested(), sasl::SCRAM_SHA_256),
            None => (ChannelBinding::unsupported(), sasl::SCRAM_SHA_256),
        };
        if !offered.contains(&mechanism) {
            return Err(self.refuse(format!("the server offers {offered:?}, and walcast has SCRAM-SHA-256")));
        }
        if mechanism != sasl::SCRAM_SHA_256_PLUS {
            self.without_channel_binding()?;
        }
        let mut scram = ScramSha256::new(self.password()?.reveal().as_bytes(), binding);
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut message)?;
        self.wire.send(&message).await?;
        let Message::AuthenticationSaslContinue(body) = self.next().await? else {
            return Err(Error::Protocol("no answer to the first message of SCRAM".into()));
        };
        scram.update(body.data()).map_err(|error| self.refuse(format!("SCRAM: {error}")))?;
        message.clear();
        frontend::sasl_response(scram.message(), &mut message)?;
        self.wire.send(&message).await?;
        let Message::AuthenticationSaslFinal(body) = self.next().await? else {
            return Err(Error::Protocol("no answer to the last message of SCRAM".into()));
        };
        scram.finish(body.data()).map_err(|error| {
            self.refuse(format!("the server did not prove that it knows the password: {error}"))
        })
    }
}
