gcloud compute tpus tpu-vm ssh mine --zone=us-central2-b --project=speech --worker=all '--command=cd '"'"'/home/me/hra clone'"'"' || exit 2
pid=/tmp/hra-adapt.pid
left=$(cat "$pid" 2>/dev/null)
if [ -n "$left" ] && grep -qs hra.commands "/proc/$left/cmdline"; then
  kill -TERM "$left"
  for _ in $(seq 120); do
    kill -0 "$left" 2>/dev/null || break
    sleep 1
  done
  kill -KILL "$left" 2>/dev/null
fi
export NOTE='"'"'it'"'"'"'"'"'"'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f'"'"'
export HRA_CACHE=gs://mine/cache
log=/tmp/hra-adapt.log
: >> "$log"
shown=$(wc -c < "$log")
python3 -m hra.commands.train --config=experiments/adapt.py --workdir=runs/mine '"'"'--config.data.path=it'"'"'"'"'"'"'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f'"'"' >> "$log" 2>&1 &
echo "$!" > "$pid"
tail --pid="$!" --sleep-interval=0.5 -f -c "+$((shown + 1))" "$log"
wait "$!"
code=$?
echo "hra ended with $code"
exit "$code"'
