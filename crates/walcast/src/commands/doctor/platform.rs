//! Who runs the server, since that decides how a setting is changed.

use walcast_postgres::{Error, Session};

use super::fix::Fix;

/// A way of running Postgres, told by the settings that only it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Platform {
    /// Somebody who may `ALTER SYSTEM`.
    OwnServer,
    /// Amazon RDS or Aurora.
    Rds,
    /// Google Cloud SQL.
    CloudSql,
    /// Azure Database, Flexible Server.
    Azure,
    /// Neon.
    Neon,
}

impl Platform {
    /// Asks for the settings that tell.
    pub(crate) async fn detect(session: &Session) -> Result<Self, Error> {
        let rows = session
            .query(
                "SELECT DISTINCT split_part(name, '.', 1) FROM pg_catalog.pg_settings \
                 WHERE split_part(name, '.', 1) IN ('rds', 'cloudsql', 'azure', 'neon')",
                &[],
            )
            .await?;
        let prefixes: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let has = |prefix: &str| prefixes.iter().any(|found| found == prefix);
        Ok(match () {
            () if has("rds") => Self::Rds,
            () if has("cloudsql") => Self::CloudSql,
            () if has("azure") => Self::Azure,
            () if has("neon") => Self::Neon,
            () => Self::OwnServer,
        })
    }

    /// How a setting that needs a restart is changed there.
    pub(crate) fn set_and_restart(self, name: &str, value: &str) -> Fix {
        let (place, name, value) = match (self, name) {
            (Self::OwnServer, _) => {
                return Fix::sql(format!("ALTER SYSTEM SET {name} = '{value}';")).then("restart Postgres");
            }
            (Self::Rds, "wal_level") => ("the DB parameter group", "rds.logical_replication", "1"),
            (Self::Rds, _) => ("the DB parameter group", name, value),
            (Self::CloudSql, "wal_level") => ("the instance's flags", "cloudsql.logical_decoding", "on"),
            (Self::CloudSql, _) => ("the instance's flags", name, value),
            (Self::Azure, _) => ("the server parameters", name, value),
            (Self::Neon, _) => ("the project's settings (Logical Replication)", name, value),
        };
        format!("set {name} = {value} in {place}, then restart the instance").into()
    }

    /// How a setting that takes effect on reload is changed there.
    pub(crate) fn set(self, name: &str, value: &str) -> Fix {
        match self {
            Self::OwnServer => {
                Fix::sql(format!("ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf();"))
            }
            _ => format!("set {name} = {value} where this platform keeps the server's parameters").into(),
        }
    }

    /// The statement that lets a role use replication, `role` quoted.
    pub(crate) fn grant_replication(self, role: &str) -> Fix {
        Fix::sql(match self {
            Self::Rds => format!("GRANT rds_replication TO {role};"),
            _ => format!("ALTER ROLE {role} REPLICATION;"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Platform;

    #[test]
    fn wal_level_is_set_where_the_platform_has_it() {
        let set = |platform: Platform| platform.set_and_restart("wal_level", "logical").to_string();
        assert_eq!(set(Platform::OwnServer), "ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres");
        assert!(set(Platform::Rds).contains("rds.logical_replication = 1"));
        assert!(set(Platform::CloudSql).contains("cloudsql.logical_decoding = on"));
    }
}
