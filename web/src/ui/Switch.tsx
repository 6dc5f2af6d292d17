// A few choices of which one holds, side by side.

interface Props<T extends string | boolean> {
  name: string;
  choices: readonly [T, string][];
  chosen: T;
  onChoice: (choice: T) => void;
}

export function Switch<T extends string | boolean>({ name, choices, chosen, onChoice }: Props<T>) {
  return (
    <div className="switch" role="group" aria-label={name}>
      {choices.map(([value, label]) => (
        <button key={label} type="button" aria-pressed={value === chosen} onClick={() => onChoice(value)}>
          {label}
        </button>
      ))}
    </div>
  );
}
