# bash completion of depthvla, generated from the code by `depthvla reference`.
_depthvla() {
  local word=${COMP_WORDS[COMP_CWORD]} options=""
  COMPREPLY=()
  case "$COMP_CWORD ${COMP_WORDS[1]}" in
    "1 "*) options="bench bench-decoding bench-training chunk-boundaries collect completion console convert demo depth-comparison evaluate experts faults from-bags handover latency network network-fragments preflight recorder-load recover reference replay report serve session soak statistics train up view" ;;
    *" bench") options="--agreement --compile --device --dtype --help --image-height --image-width --markdown --no-agreement --no-compile --no-markdown --out --policy --runs --threads --training" ;;
    *" bench-decoding") options="--depth-size --help --image-size --samples" ;;
    *" bench-training") options="--config --device --help --largest --out --steps --variants" ;;
    *" chunk-boundaries") options="--bag --help --json --latencies-ms --plot --policy --seed" ;;
    *" collect") options="--episodes --first-seed --help --hold-steps --image-height --image-width --images --max-steps --noise-rad --noisy-share --out --stills --task --task-options --workers" ;;
    *" console") options="--help --params-file --ros-args" ;;
    *" convert") options="--config --depth-decoder --depth-encoder --dtype --help --made-for --norm-stats --out --pi0 --seed --to-transformers --tokenizer --vlm" ;;
    *" demo") options="--colour --duration-s --help --instruction --model --out --seed --side" ;;
    *" depth-comparison") options="--at-once --batch-size --demonstrations --depth-steps --few-shot --help --no-few-shot --no-only-table --only-table --out --seeds --steps --time-limit-s --training-seeds" ;;
    *" evaluate") options="--baseline --compare --depth --depth-every --device --execute --first-seed --help --json --latency --latency-steps --no-depth --out --policy --realtime-chunking --report --seeds --setting --strategy --task --task-options --through --time-limit-s --video-seeds --videos --workers" ;;
    *" experts") options="--first-seed --help --json --pictures --seeds --task" ;;
    *" faults") options="--document --help --model --only --out --runs --seed --slow-runs" ;;
    *" from-bags") options="--calibration-files --camera-frozen-after-s --help --images --keep --lead-steps --min-frames --out --outcomes --rectify" ;;
    *" handover") options="--help --leader-s --limb --model --out --policy-s --switches" ;;
    *" latency") options="--executor-rate-hz --help --model --out --seconds" ;;
    *" network") options="--executor-side --help --max-age-s --model --only --out --runs --seconds --seed" ;;
    *" network-fragments") options="--help --loss" ;;
    *" preflight") options="--bags --device --discovery-s --fix-hints --help --json --latency --model --no-fix-hints --no-latency --params-dir --robot --robot-file --seconds --write-params" ;;
    *" recorder-load") options="--help --kills --out --seconds --seed" ;;
    *" recover") options="--help" ;;
    *" reference") options="--help" ;;
    *" replay") options="bag:= device:= instruction:= model:= network:= noise_seed:= out:= params_dir:= rate:= robot_file:= wait_for_chunks:=" ;;
    *" report") options="--help --no-paper --no-video --out --paper --video" ;;
    *" serve") options="--adapter --device --help --host --policy --port --seed" ;;
    *" session") options="--countdown-s --episodes --executor --first-scene --give-command --help --no-give-command --no-simulator --out --policy --policy-node --recorder --setting --simulator --simulator-node --task" ;;
    *" soak") options="--help --minutes --model --out" ;;
    *" statistics") options="--help --horizon --kind --norm-stats --out" ;;
    *" train") options="--batch-size --config --data.folders --data.held-out --data.in-memory --data.layouts --data.limit-episodes --data.source --data.vocabulary --data.weights --freeze --help --init --lora.alpha --lora.rank --lora.targets --loss.depth-weight --loss.detach-prefix --loss.draws --loss.grounding-weight --loss.max-delay --loss.vary-colours --machine.accumulate --machine.log-every --machine.precision --machine.recompute --machine.save-every --machine.threads --machine.validate-every --machine.workers --model --nproc-per-node --optimiser.beta2 --optimiser.clip-norm --optimiser.ema-decay --optimiser.final-learning-rate --optimiser.learning-rate --optimiser.warmup-steps --optimiser.weight-decay --out --resume --seed --stage --steps" ;;
    *" up") options="bag:= bag_root:= depth:= device:= instruction:= leader:= max_rate_hz:= model:= network:= params_dir:= realtime_chunking:= record:= robot:= robot_file:= robot_state_publisher:= rviz:= seed:= task:= task_options:= viewer:= viewer_port:=" ;;
    *" view") options="--depth-range --help --host --no-paused --paused --port --start" ;;
  esac
  COMPREPLY=($(compgen -W "$options" -- "$word"))
  if [[ ${COMPREPLY[0]} == *:= ]]; then compopt -o nospace; fi
}
# Where there is no option to offer, files are.
complete -o default -F _depthvla depthvla
