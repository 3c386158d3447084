cd '/home/me/hra clone' && JAX_COORDINATOR_ADDRESS=127.0.0.1:12345 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 NOTE='it'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f' HRA_CACHE=gs://mine/cache python3 -m hra.commands.train --config=experiments/adapt.py --workdir=runs/mine '--config.data.path=it'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f'
cd '/home/me/hra clone' && JAX_COORDINATOR_ADDRESS=127.0.0.1:12345 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=1 NOTE='it'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f' HRA_CACHE=gs://mine/cache python3 -m hra.commands.train --config=experiments/adapt.py --workdir=runs/mine '--config.data.path=it'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f'
