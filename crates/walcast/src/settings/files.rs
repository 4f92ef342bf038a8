//! The files that settings name: whether the daemon can use them. All are looked at, whatever else is wrong.

use walcast_auth::KeySource;
use walcast_broadcaster::doors::{CertificateError, ServerTls};
use walcast_postgres::ConnectionConfig;

use super::ServeSettings;
use super::entrance::key_sources;
use super::key::{self, Key};
use super::reader::Reader;
use crate::policy_file;

/// Those that the databases are connected to with.
pub(super) fn of_databases(reader: &mut Reader<'_>, settings: &ServeSettings) {
    let ServeSettings { database, history, .. } = settings;
    let mut look = |key: &Key, config: &ConnectionConfig| {
        config.unusable_files().into_iter().for_each(|problem| reader.unusable(key, problem, None));
    };
    look(&key::DATABASE_URL, database);
    if history != database {
        look(&key::HISTORY_URL, history);
    }
}

/// Those that clients are let in by, but for the policies.
pub(super) fn of_entrance(reader: &mut Reader<'_>) {
    for (key, read) in key_sources() {
        let Some(path) = reader.file(key) else { continue };
        // What is no file is looked at when it is read.
        let Ok(source @ (KeySource::SecretFile(_) | KeySource::PemFile(_) | KeySource::JwksFile(_))) =
            read(&path.to_string_lossy())
        else {
            continue;
        };
        if let Err(error) = source.look() {
            reader.unusable(key, error.to_string(), Some(error.hint()));
        }
    }
    let (certificate, key) = match (reader.file(&key::TLS_CERT_FILE), reader.file(&key::TLS_KEY_FILE)) {
        (Some(certificate), Some(key)) => ServerTls::look(&certificate, &key),
        // Without the other one it is of no use; whether it can be read is said all the same.
        (Some(certificate), None) => (ServerTls::look(&certificate, &certificate).0, None),
        (None, Some(key)) => (None, ServerTls::look(&key, &key).1),
        (None, None) => return,
    };
    let mut tell = |key: &Key, error: Option<CertificateError>| {
        if let Some(error) = error {
            reader.unusable(key, error.to_string(), Some(error.hint()));
        }
    };
    tell(&key::TLS_CERT_FILE, certificate);
    tell(&key::TLS_KEY_FILE, key);
}

/// The policies.
pub(super) fn of_policies(reader: &mut Reader<'_>) {
    let Some(path) = reader.file(&key::POLICIES) else { return };
    if let Err(error) = policy_file::read(&path) {
        reader.unusable(&key::POLICIES, error.to_string(), error.hint());
    }
}
