#!/usr/bin/env bash
# Dependencies between our crates point one way (docs/architecture.md). Each line: a crate and all it may use.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A may=(
  [model]=""
  [feed]="model"
  [pgoutput]="model"
  [filter]="model pgoutput"
  [policy]="model filter protocol"
  [auth]=""
  [protocol]="model"
  [postgres]="model pgoutput"
  [history]="model feed postgres"
  [snapshot]="model feed pgoutput postgres filter"
  [replication]="model feed pgoutput postgres"
  [broadcaster]="model feed protocol history snapshot filter policy auth"
  [client]="model protocol"
  [cluster]=""
  [corpus]=""
)

failed=0
for crate in "${!may[@]}"; do
  used=$(sed -n '/^\[dependencies\]/,/^\[/p' "crates/$crate/Cargo.toml" | sed -nE 's/^walcast-([a-z]+)[. ].*/\1/p')
  for other in $used; do
    case " ${may[$crate]} " in
      *" $other "*) ;;
      *) echo "arrows: crates/$crate may not use crates/$other (docs/architecture.md, 'Crates')" >&2; failed=1 ;;
    esac
  done
done

# The middle of the broadcaster knows no sockets: only its doors do.
if grep -rnE "tokio::net|tungstenite|axum|hyper" crates/broadcaster/src --include=*.rs | grep -v "crates/broadcaster/src/doors"; then
  echo "arrows: only crates/broadcaster/src/doors may know sockets" >&2
  failed=1
fi
exit $failed
