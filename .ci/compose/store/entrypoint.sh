set -eu
export RCLONE_AUTH_KEY="\"$RUSTFS_ACCESS_KEY,$RUSTFS_SECRET_KEY\"" # quoted, since a comma would begin a second one
exec rclone --config '' serve s3 --addr :9000 "$RUSTFS_VOLUMES"
